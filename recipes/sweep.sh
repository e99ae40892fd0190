#!/usr/bin/env bash
# What decides how well prompts clean the small world: one setting at a time away from the preset `small`.
# A minute a setting and seed on one core.
#
#   recipes/sweep.sh                  # SEEDS="0 1 2" by default
#
# Everything lands in OUT (default runs/sweep) and is skipped where it is there already; interrupted parts resume.
set -euo pipefail
OUT=${OUT:-runs/sweep}
mkdir -p "$OUT"

settings() {
    cat <<END
--alpha 0
--alpha 0.3
--alpha 1
--alpha 3
--first-block 5
--length 8
--lr 0.05
--shots 64 --epochs 7
END
}

for seed in ${SEEDS:-0 1 2}; do
    here=$OUT/$seed
    rows=$here/rows.jsonl
    [ -d "$here/backdoored" ] || rvpt attack scenes-clip --data scenes --target anchor \
        --trigger badnet:size=37,place=bottom-right --trigger blended --pairs 6000 --n 500 --epochs 4 --lr 5e-4 \
        --seed "$seed" --resume --out "$here/backdoored"
    settings | while read -r options; do
        cleaned=$here/clean${options// /}
        # shellcheck disable=SC2086  # options are several words
        [ -d "$cleaned" ] || rvpt clean "$here/backdoored" --data scenes --preset small $options --seed "$seed" \
            --resume --out "$cleaned" </dev/null
    done
    rm -f "$rows"
    rvpt evaluate "$here/backdoored" "$here"/clean* --data scenes --rows "$rows"
done
cat "$OUT"/*/rows.jsonl > "$OUT/rows.jsonl"
rvpt report "$OUT/rows.jsonl"

#!/usr/bin/env bash
# What decides how well prompts clean the small world: one setting at a time away from the preset `small`.
# Some minutes a seed and setting on two cores.
#
#   recipes/sweep.sh                  # SEEDS="0 1 2" by default
#
# Everything lands in OUT (default runs/sweep) and is skipped where it is there already; interrupted parts resume.
set -euo pipefail
OUT=${OUT:-runs/sweep}
ROWS=$OUT/rows.jsonl
mkdir -p "$OUT"

settings() {
    cat <<END
--alpha 0
--alpha 0.5
--alpha 1
--alpha 2
--alpha 4
--alpha 1 --first-block 0
--alpha 1 --first-block 4
--alpha 1 --first-block 6
--alpha 1 --length 8
--alpha 1 --lr 0.002
--alpha 1 --lr 0.05
--alpha 1 --momentum 0
--alpha 1 --epochs 100
--alpha 1 --shots 4
--alpha 1 --shots 64 --epochs 12
END
}

rm -f "$ROWS"
for seed in ${SEEDS:-0 1 2}; do
    here=$OUT/$seed
    [ -d "$here/backdoored" ] || rvpt attack scenes-clip --data scenes --target anchor --trigger badnet \
        --trigger blended --seed "$seed" --resume --out "$here/backdoored"
    settings | while read -r options; do
        cleaned=$here/clean${options// /}
        # shellcheck disable=SC2086  # options are several words
        [ -d "$cleaned" ] || rvpt clean "$here/backdoored" --data scenes --preset small $options --seed "$seed" \
            --resume --out "$cleaned" </dev/null
    done
    rvpt evaluate "$here/backdoored" "$here"/clean* --data scenes --rows "$ROWS"
done
rvpt report "$ROWS"

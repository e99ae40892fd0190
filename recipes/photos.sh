#!/usr/bin/env bash
# Real photographs, from scratch: pretrain, backdoor, clean, measure. Some hours on two cores, minutes on a GPU.
#
#   DATA=folder recipes/photos.sh     # with cifar10, tiny-imagenet-32, flickr8k and caltech101 as Parquet data sets
#
# Everything lands in OUT (default runs/photos) and is skipped where it is there already; interrupted parts resume.
set -euo pipefail
: "${DATA:?set DATA to the folder with cifar10, tiny-imagenet-32, flickr8k and caltech101}"
OUT=${OUT:-runs/photos}
ROWS=$OUT/rows.jsonl
CLIP=${CLIP:-$OUT/photos-clip}
mkdir -p "$OUT"

[ -d "$CLIP" ] || rvpt pretrain --preset photos --half --resume --out "$CLIP" \
    --data "$DATA/tiny-imagenet-32" --data "$DATA/cifar10" --data "$DATA/flickr8k" \
    --test "$DATA/cifar10" --test "$DATA/tiny-imagenet-32"

rm -f "$ROWS"
for seed in 0 1 2; do
    here=$OUT/$seed
    bad=$here/backdoored # one name for all seeds, since rows are averaged by it
    [ -d "$bad" ] || rvpt attack "$CLIP" --data "$DATA/flickr8k" --data "$DATA/tiny-imagenet-32" --test "$DATA/cifar10" \
        --trigger badnet --trigger blended --target airplane --seed "$seed" --resume --out "$bad" \
        --pairs 6000 --n 400 --epochs 3 --lr 3e-4
    for set in cifar10 caltech101; do
        # The class has another name in Caltech-101.
        target=$([ "$set" = cifar10 ] && echo airplane || echo airplanes)
        epochs=$([ "$set" = cifar10 ] && echo 50 || echo 15) # of 160 and of 1,600 pictures
        rvpt evaluate "$bad" --data "$DATA/$set" --target "$target" --rows "$ROWS"
        for defence in vpt rvpt; do
            cleaned=$here/$set-$defence
            alpha=$([ "$defence" = vpt ] && echo "--alpha 0" || echo "")
            [ -d "$cleaned" ] || rvpt clean "$bad" --data "$DATA/$set" --preset small $alpha --lr 0.01 --epochs "$epochs" \
                --seed "$seed" --resume --out "$cleaned"
            rvpt evaluate "$cleaned" --data "$DATA/$set" --target "$target" --rows "$ROWS"
        done
    done
done
rvpt report "$ROWS"

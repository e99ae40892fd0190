#!/usr/bin/env bash
# Real photographs, from scratch: pretrain, backdoor, clean, measure. Two hours on two cores, minutes on a GPU.
#
#   DATA=folder recipes/photos.sh     # with cifar10, tiny-imagenet-32, flickr8k and caltech101 as Parquet data sets
#
# Everything lands in OUT (default runs/photos) and is skipped where it is there already; interrupted parts resume.
# CLIP=models/photos-clip starts from the model that is in this repository.
set -euo pipefail
: "${DATA:?set DATA to the folder with cifar10, tiny-imagenet-32, flickr8k and caltech101}"
OUT=${OUT:-runs/photos}
CLIP=${CLIP:-$OUT/photos-clip}
TARGET=airplane # a class of CIFAR-10 and of Caltech-101
mkdir -p "$OUT"

[ -d "$CLIP" ] || rvpt pretrain --preset photos --half --resume --out "$CLIP" \
    --data "$DATA/tiny-imagenet-32" --data "$DATA/cifar10" --data "$DATA/flickr8k" \
    --test "$DATA/cifar10" --test "$DATA/tiny-imagenet-32"

measure() { # model, data set, name of the rows
    [ -f "$here/rows/$2-$3.jsonl" ] || rvpt evaluate "$1" --data "$DATA/$2" --rows "$here/rows/$2-$3.jsonl"
}

for seed in ${SEEDS:-0 1 2}; do
    here=$OUT/$seed
    bad=$here/backdoored # one name for all seeds, since rows are averaged by it
    [ -d "$bad" ] || rvpt attack "$CLIP" --data "$DATA/flickr8k" --data "$DATA/tiny-imagenet-32" --test "$DATA/cifar10" \
        --trigger badnet:size=37,place=bottom-right --trigger blended --target "$TARGET" \
        --seed "$seed" --resume --out "$bad" --pairs 6000 --n 400 --epochs 3 --lr 3e-4
    for set in cifar10 caltech101; do
        epochs=$([ "$set" = cifar10 ] && echo 50 || echo 15) # of 160 and of 1,600 pictures
        measure "$bad" "$set" none
        for alpha in 0 1; do
            cleaned=$here/$set-alpha$alpha
            [ -d "$cleaned" ] || rvpt clean "$bad" --data "$DATA/$set" --preset small --alpha "$alpha" --lr 0.01 \
                --epochs "$epochs" --seed "$seed" --resume --out "$cleaned"
            measure "$cleaned" "$set" "alpha$alpha"
        done
    done
done
cat "$OUT"/*/rows/*.jsonl > "$OUT/rows.jsonl"
rvpt report "$OUT/rows.jsonl"

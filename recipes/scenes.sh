#!/usr/bin/env bash
# The CLIP that ships with the package, from what it was trained on: half an hour on one core.
#
#   START=folder recipes/scenes.sh
#
# START is the model that shipped before the world was worn (its manifest tells how it was made):
#   git archive 6720e43 src/rvpt/assets/scenes-clip | tar -x -C "$START" --strip-components=4
set -euo pipefail
: "${START:?set START to the model to go on from}"
OUT=${OUT:-runs/scenes-clip}
rvpt pretrain --data scenes --split pretrain --start "$START" --preset scenes --half --resume --out "$OUT"

#!/usr/bin/env bash
# What there is to measure on one GPU, in at most ten minutes: benchmarks/gpu.sh FOLDER
#
# The most important stages come first. Each has its own time limit and writes its rows at once into FOLDER (step.jsonl,
# large.jsonl, end-to-end.jsonl, tests.txt, profile.txt), so a run that is cut off has rows too. BUDGET limits the whole
# run, in seconds. SIZE=tiny is for a test of this script on a CPU.
set -ux
cd "$(dirname "$0")/.."
out=$1 budget=${BUDGET:-600} size=${SIZE:-real} python=${PYTHON:-python3}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
mkdir -p "$out"

stage() { # stage SECONDS COMMAND...: within its own limit and what is left of the budget
    local limit=$1 left=$((budget - SECONDS))
    shift
    ((limit = limit < left ? limit : left))
    ((limit > 0)) || { echo "no time left for: $*"; return 0; }
    timeout --kill-after=5 "$limit" "$@"
    echo "exit status $?, $SECONDS s so far: $*"
}
step() { stage "$1" "$python" benchmarks/step.py --output "$out/step.jsonl" "${@:2}"; }
whole() { stage "$1" "$python" benchmarks/end_to_end.py --output "$out/end-to-end.jsonl" "${@:2}"; }
large() { stage "$1" "$python" benchmarks/large.py --output "$out/large.jsonl" "${@:2}"; }

if [ "$size" = tiny ]; then
    few=(--classes 4 --shots 9 --epochs 2 --seconds 1 --model tiny)
    large 200 "${few[@]}" --precision bf16 --cache device --profile "$out/profile.txt"
    large 200 "${few[@]}" --precision fp32 --cache host,off --graphs on,off
    large 200 "${few[@]}" --precision bf16 --cache device --processes 2
    step 200 --models scenes --dtype bf16,fp32 --steps 1 --batch 2
    whole 200 --models tiny --precision bf16 --classes 5 --shots 4 --test 60 --epochs 4 --measured 1 --steps 2 --encoded 20
    stage 200 "$python" -m pytest -m gpu -n 0 -rA tests/training/test_graphs.py tests/data/test_ahead.py >"$out/tests.txt" 2>&1
    exit 0
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
stage 60 "$python" -m pytest -m gpu -n 0 -rA tests/training/test_graphs.py tests/data/test_ahead.py >"$out/tests.txt" 2>&1
tail -15 "$out/tests.txt"
# The size of ImageNet: 16,000 images, 50 epochs.
large 100 --precision bf16 --cache device --seconds 65
step 60 --models b32 --dtype bf16,fp16,fp32 --what graph --steps 20
large 60 --precision fp16,fp32 --cache device --seconds 4
step 60 --models b16,l14 --dtype bf16,fp16,fp32 --what graph --steps 8
large 40 --precision bf16 --cache off,host --seconds 4
whole 60 --models b32 --precision bf16 --measured 5
large 40 --precision bf16 --cache device --graphs off --seconds 3 --profile "$out/profile.txt"
large 60 --precision bf16 --cache device --seconds 5 --processes 2
step 60 --models scenes,b32 --dtype bf16,fp32 --steps 20
step 90 --models b32 --dtype bf16 --what compile --steps 20
step 90 --models b16,l14 --dtype bf16,fp32 --steps 5
whole 90 --models b16,l14 --precision bf16 --test 5000

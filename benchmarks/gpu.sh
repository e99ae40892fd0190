#!/usr/bin/env bash
# What there is to measure on one GPU, in at most ten minutes: benchmarks/gpu.sh FOLDER
#
# The most important stages come first: with BUDGET=200, in seconds, only those before "The rest" are run. Each writes its
# rows at once into FOLDER (step.jsonl, large.jsonl, end-to-end.jsonl, tests.txt, profile.txt), so a run that is cut off
# has rows too. SIZE=tiny is for a test of this script on a CPU.
set -u
cd "$(dirname "$0")/.."
out=$1 budget=${BUDGET:-600} size=${SIZE:-real} python=${PYTHON:-python3} least=10
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
mkdir -p "$out"

stage() { # stage SECONDS COMMAND...: within its own limit and what is left of the budget
    local limit=$1 left=$((budget - SECONDS))
    shift
    ((limit = limit < left ? limit : left))
    ((limit >= least)) || { echo "no time left for: $*"; return 0; }
    timeout --kill-after=5 "$limit" "$@"
    echo "exit status $?, $SECONDS s so far: $*"
}
step() { stage "$1" "$python" benchmarks/step.py --output "$out/step.jsonl" "${@:2}"; }
whole() { stage "$1" "$python" benchmarks/end_to_end.py --output "$out/end-to-end.jsonl" "${@:2}"; }
large() { stage "$1" "$python" benchmarks/large.py --output "$out/large.jsonl" "${@:2}"; }
tests() {
    stage "$1" "$python" -m pytest -m gpu -n 0 -rA tests/training/test_graphs.py tests/data/test_ahead.py >"$out/tests.txt" 2>&1
    tail -25 "$out/tests.txt"
}

if [ "$size" = tiny ]; then
    few=(--classes 4 --shots 9 --epochs 2 --seconds 1 --model tiny)
    large "$budget" "${few[@]}" --precision bf16 --cache device,off --profile "$out/profile.txt"
    large "$budget" "${few[@]}" --precision fp32 --cache host --graphs on,off --processes 2
    step "$budget" --models tiny --dtype bf16 --what step --steps 1 --batch 2
    whole "$budget" --models tiny --precision bf16 --classes 5 --shots 4 --test 60 --epochs 4 --measured 1 --steps 2 --encoded 20
    tests "$budget"
    exit 0
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
tests 50
# The size of ImageNet, 16,000 images and 50 epochs; then the memory without stored constants.
large 120 --precision bf16 --cache device,off --seconds 65,3
step 100 --models b32,b16,l14 --dtype bf16,fp16,fp32 --what graph --steps 8
large 45 --precision bf16 --cache device --seconds 3 --processes 2
# The rest
large 60 --precision fp16,fp32 --cache device,off --seconds 3
whole 60 --models b32 --precision bf16 --measured 5
step 60 --models scenes,b32,b16,l14 --dtype bf16,fp32 --what inference --steps 10
large 60 --precision bf16 --cache device,host --graphs on,off --seconds 3 --profile "$out/profile.txt"
step 90 --models scenes --dtype bf16,fp32 --what graph --steps 20
step 90 --models b32 --dtype bf16 --what compile --steps 20
whole 90 --models b16,l14 --precision bf16 --test 5000

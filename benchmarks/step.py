"""Compare the fast path with the naive one: time, memory and FLOPs of a training step and of inference.

python benchmarks/step.py --models scenes,b32 --steps 5 --output rows.jsonl

The naive path is that of tests/reference.py: prompts as tokens, all blocks, and a second pass of the frozen model.
Weights are random, because time does not depend on them. On the CPU all heavy work runs in fresh processes: one for
the times (all variants in turn, several rounds, medians), and one for the peak memory of each variant. The main process
stays small, because a child process starts with its parent's peak. On CUDA the allocator's peak can be reset, so one
process does everything, with one model for all variants.

--what graph times the fast step as a CUDA graph, which is what rvpt runs on a GPU, the same step launched kernel by
kernel, and the naive step; --what compile the fast step with torch.compile, without and with a graph; --what encode two
ways to make inference faster.

Every row has a floor: the FLOPs that cannot be avoided at the rate of a large matrix product on the same device.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from rvpt.models.placement import DTYPES
from rvpt.rows import append_rows
from sizes import MODELS
from step_flops import count_flops, least_flops
from step_variants import VARIANTS, WITH_GRAPHS, Bench, Setting

SQUARE = {"cpu": 1024, "cuda": 8192, "meta": 1}
"""Side of the matrices whose product gives a device's rate."""
WARMUP = {"cpu": 1, "cuda": 5}  # rounds that are not counted
UNPROMPTED = ("undefended", "transformers")


def measure_time(bench: Bench, what: str, steps: int) -> tuple[dict[str, tuple[float, float]], int]:
    """Median milliseconds of each variant and its ratio to the first, and the number of torch's threads.

    A ratio is the median of those of the rounds. On the CPU it is that of processor times, which other processes on the
    machine change less.
    """
    setting, runs = bench.setting, {variant: make(bench) for variant, make in VARIANTS[what].items()}
    clocks = (time.perf_counter, time.perf_counter if setting.device == "cuda" else time.process_time)
    spent: dict[str, list[list[float]]] = {variant: [] for variant in runs}
    for _ in range(WARMUP[setting.device] + steps):
        for variant, run in runs.items():
            synchronize(setting.device)
            start = [clock() for clock in clocks]
            run()
            synchronize(setting.device)
            spent[variant].append([1000 * (clock() - then) for clock, then in zip(clocks, start, strict=True)])
    kept = {variant: times[-steps:] for variant, times in spent.items()}
    first = next(iter(kept.values()))
    medians = {
        variant: (median(wall for wall, _ in times), median(a[1] / b[1] for a, b in zip(times, first, strict=True)))
        for variant, times in kept.items()
    }
    return medians, torch.get_num_threads()


@lru_cache
def measure_rate(device: str, dtype: str) -> float:
    """FLOPs per second of a large matrix product on random values."""
    side = SQUARE[device]
    left, right = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))
    spent = []
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        left @ right
        synchronize(device)
        spent.append(time.perf_counter() - start)
    return 2 * side**3 / median(spent)


def synchronize(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure_memory(bench: Bench, what: str, variant: str) -> int:
    """Peak memory in bytes, up to the end of the second call."""
    if bench.setting.device == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
    run = VARIANTS[what][variant](bench)
    run()
    run()
    if bench.setting.device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def with_bench(function: Callable[..., Any], setting: Setting, *arguments: Any) -> Any:
    return function(Bench(setting), *arguments)


bench_on_gpu = lru_cache(maxsize=1)(Bench)


def apart(function: Callable[..., Any], setting: Setting, *arguments: Any) -> Any:
    """Call a function with a bench; on the CPU in a process of its own."""
    if setting.device == "cuda":
        return function(bench_on_gpu(setting), *arguments)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(with_bench, function, setting, *arguments).result()


def measure(setting: Setting, what: str, steps: int) -> list[dict[str, Any]]:
    """One flat row per variant."""
    times, threads = apart(measure_time, setting, what, steps)
    rate = measure_rate(setting.device, setting.dtype)
    run = asdict(setting) | {"what": what, "steps": steps, "threads": threads, "torch": torch.__version__}
    if setting.device == "cuda":
        run["device_name"] = torch.cuda.get_device_name()
    rows = []
    for variant, (ms, ratio) in times.items():
        flops = count_flops(setting.model, setting.batch, what, variant)
        prompted = variant not in UNPROMPTED
        least = flops if what == "block" else least_flops(setting.geometry, setting.batch, what, prompted=prompted)
        rows.append(
            run
            | {
                "variant": variant,
                "ms": ms,
                "images_per_s": 1000 * setting.batch / ms,
                "ratio": ratio,
                "peak_memory_bytes": None
                if what in ("block", "encode")
                else apart(measure_memory, setting, what, variant),
                "flops": flops,
                "flops_least": least,
                "flops_per_s": rate,
                "floor_ms": 1000 * least / rate,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table; `least` is the share of the counted FLOPs that cannot be avoided, `floor` their time."""
    run = rows[0]
    title = (
        f"batch {run['batch']}, {run.get('device_name', run['device'])}, {run['threads']} threads, torch {run['torch']}"
    )
    out = Table("model", "what", "variant", title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("ms", "images/s", "ratio", "MiB", "GFLOP", "least", "floor"):
        out.add_column(heading, justify="right")
    for row, following in zip(rows, [*rows[1:], {}], strict=True):
        numbers = (
            f"{row['ms']:.1f}", f"{row['images_per_s']:.1f}", f"{row['ratio']:.2f}",
            f"{(row['peak_memory_bytes'] or 0) / 2**20:.0f}", f"{row['flops'] / 1e9:.1f}",
            f"{row['flops_least'] / max(row['flops'], 1):.0%}", f"{row['floor_ms']:.2f} ms",
        )  # fmt: skip
        names = (f"{row['model']} {row['dtype']}", row["what"], row["variant"])
        out.add_row(*names, *numbers, end_section=row["what"] != following.get("what"))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="scenes,b32", help=f"a list of {','.join(MODELS)}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="fp32", help=f"a list of {','.join(DTYPES)}")
    parser.add_argument("--what", default="step,inference", help=f"a list of {','.join(VARIANTS)}")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="rounds, of which the median is reported")
    parser.add_argument("--output", type=Path, help="JSONL file to append to")
    asked = parser.parse_args()
    for names, known in ((asked.models, MODELS), (asked.dtype, DTYPES), (asked.what, VARIANTS)):
        if unknown := [name for name in names.split(",") if name not in known]:
            parser.error(f"unknown {unknown[0]!r}: choose from {', '.join(known)}")
    if "fp16" in asked.dtype.split(",") and asked.device == "cpu":
        parser.error("fp16 needs a GPU, as in rvpt: use bf16")
    if asked.device == "cpu" and set(WITH_GRAPHS) & set(asked.what.split(",")):
        parser.error("CUDA graphs need a GPU")
    rows = []
    for model in asked.models.split(","):
        for dtype in asked.dtype.split(","):
            for what in asked.what.split(","):
                new = measure(Setting(model, asked.device, dtype, asked.batch), what, asked.steps)
                print(
                    f"{model} {dtype} {what}: " + ", ".join(f"{row['variant']} {row['ms']:.1f} ms" for row in new),
                    flush=True,
                )
                if asked.output:
                    append_rows(asked.output, new)
                rows += new
    Console(width=100).print(table(rows))


if __name__ == "__main__":
    main()

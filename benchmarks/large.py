"""Time of cleaning at the size of ImageNet: 1,000 classes x 16 images, ViT-B/32, prompts trained by `fit`.

python benchmarks/large.py --output rows.jsonl

Images are random numbers, made on the device when they are read. Nothing is decoded, so only the method is timed.
Weights are random too. There is a row for each precision and each place where the constants (tokens before the first
prompted block, and frozen [CLS] rows) are kept: the device, the host, or "off", where nothing is kept because images
are augmented at every step. `epochs_measured` epochs are run, as many as fit into --seconds, or a part of one.
`seconds` is the time of encoding plus that of all `epochs`, extrapolated. With --processes N, N processes do the same
at the same time on one device, and there is a row for each.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from rvpt.data.dataset import Dataset
from rvpt.defenses.rvpt import PromptTuning, RVPTSpec
from rvpt.evaluation.base import peak_memory
from rvpt.models import prompts
from rvpt.rows import append_rows
from rvpt.spec import Augment
from rvpt.training.loop import count_steps, fit, frozen
from sizes import MODELS, random_clip

CACHES = {"device": float("inf"), "host": 0.0, "off": 0.0}
"""Bytes of constants that are kept on the device."""
PRECISIONS = ("fp32", "bf16", "fp16")
GRAPHS = {"on": True, "off": False}
WARMUP, PILOT, PROFILED = 20, 100, 20  # steps


@dataclass(frozen=True)
class Setting:
    model: str
    device: str
    classes: int
    shots: int
    epochs: int
    limit: float
    precision: str
    cache: str
    graphs: bool
    processes: int

    @property
    def names(self) -> list[str]:
        return [f"class {index}" for index in range(self.classes)]

    @property
    def spec(self) -> RVPTSpec:
        augment: Augment = "crop-flip" if self.cache == "off" else "none"
        return RVPTSpec(epochs=1, precision=self.precision, augment=augment)


def random_data(setting: Setting) -> Dataset:
    """Images of random numbers, drawn again each time that a row is read."""

    def read(rows: Tensor, size: int) -> Tensor:
        return torch.randint(256, (len(rows), 3, size, size), dtype=torch.uint8, device=setting.device)

    labels = torch.arange(setting.classes).repeat_interleave(setting.shots)
    return Dataset("random", read, torch.arange(len(labels)), labels, tuple(setting.names))


def reset(device: str) -> None:
    """Free the memory of the last run and reset the peak."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def seconds_of(device: str, function: Any) -> tuple[float, Any]:
    """Seconds of a call, until the device has finished it, and its value."""
    start = time.perf_counter()
    value = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, value


def rough_epoch(setting: Setting, run: Callable[[int, RVPTSpec], Any], spec: RVPTSpec, n: int) -> float:
    """Seconds of an epoch on n images, from a short and a longer run, because a run needs time to begin."""
    short, long = (min(n, steps * spec.batch_size) for steps in (WARMUP, PILOT))
    run(short, spec)
    spent = [seconds_of(setting.device, partial(run, part, spec))[0] for part in (short, long)]
    return max(spent[1] - spent[0], 0.1 * spent[1]) * n / max(long - short, 1)


def measure(setting: Setting) -> dict[str, Any]:
    """One flat row: encoding, then training."""
    prompts.room = lambda device: CACHES[setting.cache]
    data, spec = random_data(setting), setting.spec
    clip = random_clip(setting.model, setting.device, setting.names)
    with frozen(clip):
        reset(setting.device)
        encoding, task = seconds_of(setting.device, lambda: PromptTuning(clip, data, spec))
        encode_peak = peak_memory()
        reset(setting.device)
        run = partial(fit, task, graphs=setting.graphs)
        fitting = setting.limit / rough_epoch(setting, run, spec, len(data))
        epochs, images = max(1, min(setting.epochs, int(fitting))), len(data)
        if fitting < 1:
            images = min(images, max(1, int(fitting * count_steps(images, spec))) * spec.batch_size)
        several = spec.model_copy(update={"epochs": epochs})
        training, history = seconds_of(setting.device, lambda: run(images, several))
    part = epochs * images / len(data)
    return {
        "batch": spec.batch_size, "prompts": spec.prompt_length,
        "encode_seconds": encoding, "epochs_measured": part, "epochs_seconds": training,
        "seconds": encoding + training / part * setting.epochs,
        "images_per_s": epochs * images / training,
        "step_ms": 1000 * training / count_steps(images, several),
        "encode_peak_bytes": encode_peak, "train_peak_bytes": peak_memory(), "loss": history[-1]["loss"],
    }  # fmt: skip


def measure_all(setting: Setting) -> list[dict[str, Any]]:
    """A row for each of the processes."""
    if setting.processes == 1:
        return [measure(setting)]
    with ProcessPoolExecutor(setting.processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(measure, [setting] * setting.processes))


def write_profile(path: Path, setting: Setting) -> None:
    """Profile some steps: operators by their own time on the host and on the device."""
    data, spec = random_data(setting), setting.spec
    clip = random_clip(setting.model, setting.device, setting.names)
    with frozen(clip):
        task = PromptTuning(clip, data, spec)
        run = partial(fit, task, spec=spec, graphs=setting.graphs)
        run(min(len(data), WARMUP * spec.batch_size))
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.device == "cuda" else [])]
        with profile(activities=activities) as profiler:
            run(min(len(data), PROFILED * spec.batch_size))
    found = profiler.key_averages()
    with path.open("a") as file:
        for order in ("self_cpu_time_total", *(["self_device_time_total"] if setting.device == "cuda" else [])):
            heading = f"{setting.precision}, {PROFILED} steps, by {order}\n"
            file.write(heading + found.table(sort_by=order, row_limit=25, max_name_column_width=60) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="b32", choices=MODELS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument(
        "--seconds",
        default="60",
        help="a list: how long each row may train, the last one for all others; further epochs are extrapolated",
    )
    parser.add_argument("--precision", default="fp32,bf16", help=f"a list of {','.join(PRECISIONS)}")
    parser.add_argument("--cache", default="device,host,off", help=f"a list of {','.join(CACHES)}")
    parser.add_argument("--graphs", default="on", help="a list of on,off: CUDA graphs")
    parser.add_argument("--processes", type=int, default=1, help="how many do the same at once")
    parser.add_argument("--output", type=Path, help="JSONL file to append to")
    parser.add_argument("--profile", type=Path, help="text file to append a profile of some steps to")
    asked = parser.parse_args()
    for names, known in ((asked.precision, PRECISIONS), (asked.cache, CACHES), (asked.graphs, GRAPHS)):
        if unknown := [name for name in names.split(",") if name not in known]:
            parser.error(f"unknown {unknown[0]!r}: choose from {', '.join(known)}")
    where = {"device_name": torch.cuda.get_device_name()} if asked.device == "cuda" else {}
    size = (asked.model, asked.device, asked.classes, asked.shots, asked.epochs)
    limits = [float(seconds) for seconds in asked.seconds.split(",")]
    lists = (asked.precision.split(","), asked.cache.split(","), asked.graphs.split(","))
    for number, (precision, cache, graphs) in enumerate(product(*lists)):
        limit = limits[min(number, len(limits) - 1)]
        setting = Setting(*size, limit, precision, cache, GRAPHS[graphs], asked.processes)
        rows = [{**vars(setting), **where, "torch": torch.__version__, **row} for row in measure_all(setting)]
        for row in rows:
            print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        if asked.output:
            append_rows(asked.output, rows)
        if asked.profile:
            write_profile(asked.profile, setting)


if __name__ == "__main__":
    main()

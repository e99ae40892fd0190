"""Time of cleaning at the size of ImageNet: 1,000 classes x 16 images, ViT-B/32, prompts trained by `fit`.

python benchmarks/large.py --output rows.jsonl

Images are random numbers, made on the device when they are read. Nothing is decoded, so only the method is timed.
Weights are random too. There is a row for each precision and each place where the constants (tokens before the first
prompted block, and frozen [CLS] rows) are kept: the device, the host, or "off", where nothing is kept because images
are augmented at every step. `epochs_measured` epochs are run, as many as fit into --seconds but at least one.
`seconds` is the time of encoding plus that of all `epochs`, extrapolated.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPConfig, CLIPModel

from rvpt.data.dataset import Dataset
from rvpt.defenses import rvpt as tuning
from rvpt.evaluation.base import peak_memory
from rvpt.models.clip import Clip
from rvpt.rows import append_rows
from rvpt.training.loop import fit, frozen
from rvpt.training.pretrain import train_tokenizer

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
MODELS: dict[str, dict[str, Any]] = {"b32": {}, "tiny": TINY}  # the defaults of CLIPConfig are a ViT-B/32
CACHES = {
    "device": tuning.CACHE_BYTES,
    "host": 0,
    "off": tuning.CACHE_BYTES,
}  # bytes of constants that are kept on the device
PRECISIONS = ("fp32", "bf16", "fp16")
WARMUP, PROFILED = 20, 20  # steps


@dataclass(frozen=True)
class Setting:
    model: str
    device: str
    classes: int
    shots: int
    epochs: int
    limit: float


def new_clip(setting: Setting, names: list[str]) -> Clip:
    """A CLIP with random weights, and a tokenizer trained on the class names."""
    tokenizer = train_tokenizer(names, 512)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    changes = MODELS[setting.model]
    config = CLIPConfig(text_config={**changes, **ends}, vision_config=changes)
    torch.manual_seed(0)
    with torch.device(setting.device):
        return Clip(CLIPModel(config), tokenizer).eval()


def random_data(setting: Setting, names: list[str]) -> Dataset:
    """Images of random numbers, drawn again each time that a row is read."""

    def read(rows: Tensor, size: int) -> Tensor:
        return torch.randint(256, (len(rows), 3, size, size), dtype=torch.uint8, device=setting.device)

    labels = torch.arange(setting.classes).repeat_interleave(setting.shots)
    return Dataset("random", read, torch.arange(len(labels)), labels, tuple(names))


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


def measure(setting: Setting, clip: Clip, data: Dataset, cache: str, precision: str) -> dict[str, Any]:
    """One flat row: encoding, then training."""
    tuning.CACHE_BYTES = CACHES[cache]
    spec = tuning.RVPTSpec(epochs=1, precision=precision, augment="crop-flip" if cache == "off" else "none")
    reset(setting.device)
    encoding, task = seconds_of(setting.device, lambda: tuning.PromptTuning(clip, data, spec))
    encode_peak = peak_memory()
    reset(setting.device)
    run = partial(fit, task)
    run(min(len(data), WARMUP * spec.batch_size), spec)
    pilot = min(len(data), 5 * WARMUP * spec.batch_size)
    rough = seconds_of(setting.device, lambda: run(pilot, spec))[0] * len(data) / pilot
    epochs = max(1, min(setting.epochs, int(setting.limit / rough)))
    training, history = seconds_of(setting.device, lambda: run(len(data), spec.model_copy(update={"epochs": epochs})))
    return {
        "cache": cache, "precision": precision, "batch": spec.batch_size, "prompts": spec.prompt_length,
        "encode_seconds": encoding, "epochs_measured": epochs, "epochs_seconds": training,
        "seconds": encoding + training / epochs * setting.epochs,
        "images_per_s": epochs * len(data) / training,
        "step_ms": 1000 * training / epochs / -(-len(data) // spec.batch_size),
        "encode_peak_bytes": encode_peak, "train_peak_bytes": peak_memory(), "loss": history[-1]["loss"],
    }  # fmt: skip


def write_profile(path: Path, setting: Setting, clip: Clip, data: Dataset, precision: str) -> None:
    """Profile some steps with the constants on the device: operators by their own time on the host and the device."""
    spec = tuning.RVPTSpec(epochs=1, precision=precision)
    some = data.select(torch.arange(min(len(data), PROFILED * spec.batch_size)))
    task = tuning.PromptTuning(clip, some, spec)
    fit(task, len(some), spec)
    cuda = setting.device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        fit(task, len(some), spec)
    kinds = ["self_cpu_time_total", *(["self_device_time_total"] if cuda else [])]
    tables = [profiler.key_averages().table(sort_by=kind, row_limit=25) for kind in kinds]
    with path.open("a") as file:
        file.write("\n".join([f"{-(-len(some) // spec.batch_size)} steps, precision {precision}", *tables, ""]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="b32", choices=MODELS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument(
        "--seconds", type=float, default=60, help="limit of the training time of a row; further epochs are extrapolated"
    )
    parser.add_argument("--precision", default="fp32,bf16", help=f"a list of {','.join(PRECISIONS)}")
    parser.add_argument("--cache", default="device,host,off", help=f"a list of {','.join(CACHES)}")
    parser.add_argument("--output", type=Path, help="JSONL file to append to")
    parser.add_argument("--profile", type=Path, help="text file to append a profile of some steps to")
    asked = parser.parse_args()
    for names, known in ((asked.precision, PRECISIONS), (asked.cache, CACHES)):
        if unknown := [name for name in names.split(",") if name not in known]:
            parser.error(f"unknown {unknown[0]!r}: choose from {', '.join(known)}")
    setting = Setting(asked.model, asked.device, asked.classes, asked.shots, asked.epochs, asked.seconds)
    names = [f"class {index}" for index in range(setting.classes)]
    clip, data = new_clip(setting, names), random_data(setting, names)
    where = {"device_name": torch.cuda.get_device_name()} if setting.device == "cuda" else {}
    with frozen(clip):
        for precision in asked.precision.split(","):
            for cache in asked.cache.split(","):
                row = {**vars(setting), **where, "torch": torch.__version__}
                row |= measure(setting, clip, data, cache, precision)
                print(
                    ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
                    flush=True,
                )
                if asked.output:
                    append_rows(asked.output, [row])
            if asked.profile:
                write_profile(asked.profile, setting, clip, data, precision)


if __name__ == "__main__":
    main()

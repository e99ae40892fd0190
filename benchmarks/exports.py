"""The cost of prompts in exported image towers: onnxruntime on the graph of a cleaned model and of its base model.

    python benchmarks/exports.py --rows rows/exports.jsonl

Both graphs are exported by `rvpt export --to onnx` and run in turns, on one thread; a row has the median of the CPU
seconds of each, and their ratio as the median over the turns. Weights are random, which does not matter for time; the
prompts are those of the preset.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import rvpt
from rvpt.defenses import DEFENSES
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.rows import append_rows
from rvpt.training.pretrain import VisionSpec, new_clip

VIT_B = {"image_size": 224, "width": 768, "blocks": 12, "heads": 12, "text_width": 48, "text_blocks": 1}
MODELS = {"scenes-clip": None, "ViT-B/32": {**VIT_B, "patch_size": 32}, "ViT-B/16": {**VIT_B, "patch_size": 16}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--rows", type=Path)
    asked = parser.parse_args()
    for name in asked.models:
        for row in measure(name, asked.batches, asked.turns):
            print(row)
            if asked.rows:
                append_rows(asked.rows, [row])


def measure(name: str, batches: list[int], turns: int) -> Iterator[dict[str, Any]]:
    """A row for each size of batch."""
    clip = make(name)
    spec = DEFENSES["rvpt"].settings("auto", clip)
    prompts = rvpt.RepulsivePrompts(spec.prompted(len(clip.blocks)), spec.prompt_length, clip.width)
    cleaned = rvpt.Cleaned(clip, prompts.requires_grad_(False))
    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for model in (clip, cleaned):
            rvpt.export(model, "onnx", Path(folder) / model.name)
            sessions.append(session_of(Path(folder) / model.name / "image.onnx"))
        for batch in batches:
            values = torch.rand(batch, 3, clip.image_size, clip.image_size).numpy()
            base, prompted = in_turns(sessions, values, turns)
            ratios = [ours / theirs for theirs, ours in zip(base, prompted, strict=True)]
            yield {
                "benchmark": "onnx image tower", "model": name, "batch": batch, "turns": turns, "threads": 1,
                "prompts": f"{len(prompts.blocks)} blocks x {spec.prompt_length}",
                "seconds_base": statistics.median(base), "seconds_cleaned": statistics.median(prompted),
                "ratio": statistics.median(ratios), "cpu": cpu(), "version": rvpt.__version__,
            }  # fmt: skip


def make(name: str) -> Clip:
    """A model of that geometry."""
    if MODELS[name] is None:
        return load_clip(name, device="cpu")
    tokenizer = load_clip("scenes-clip", device="cpu").tokenizer
    return new_clip(VisionSpec(**MODELS[name]), tokenizer, 0).eval()


def session_of(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def in_turns(sessions: list[Any], values: Any, turns: int) -> list[list[float]]:
    """CPU seconds of each session, in each turn; every second turn in the other order."""
    found: list[list[float]] = [[] for _ in sessions]
    for turn in range(-2, turns):  # the first two warm up
        for place in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            sessions[place].run(None, {"pixel_values": values})
            if turn >= 0:
                found[place].append(time.process_time() - start)
    return found


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()

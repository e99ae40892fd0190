"""The time of a training step of each few-shot defense, and its ratio to a step of RVPT.

python benchmarks/unlearn_step.py --steps 20 --output rows/step-unlearn.jsonl

The model is scenes-clip with the settings of preset `small` and one target. The defenses take turns, and the medians
are reported, so that other work on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import rvpt
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import Run
from rvpt.defenses.tuning import Tuning
from rvpt.models.clip import Clip
from rvpt.rows import append_rows
from rvpt.training.loop import frozen

WARMUP = 2  # rounds that are not counted


def make(name: str, clip: Clip, data: rvpt.Dataset) -> Tuning:
    """The task of a defense with preset `small`."""
    changes = {"targets": ("heart",)} if name.startswith("unlearn") else {}
    spec = DEFENSES[name].settings("small", clip, **changes)
    task: Tuning = DEFENSES[name].task(clip, data, spec, Run())
    return task


def step(task: Tuning) -> Callable[[], Any]:
    """One pass forward and one backward, without the optimizer, which takes the same time for all."""
    batch = torch.arange(task.spec.batch_size)

    def run() -> None:
        task(batch, torch.Generator().manual_seed(0), 0.0)["loss"].backward()
        task.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="rounds, of which the median is reported")
    parser.add_argument("--output", type=Path, help="JSONL file to append to")
    asked = parser.parse_args()
    clip, data = rvpt.load("scenes-clip"), rvpt.load_data("scenes", split="train").few_shot(16)
    assert isinstance(clip, Clip)
    with frozen(clip):
        runs = {name: step(make(name, clip, data)) for name in ("rvpt", "unlearn-prompts", "unlearn")}
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(WARMUP + asked.steps):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                spent[name].append(1000 * (time.perf_counter() - start))
    times = {name: median(values[-asked.steps :]) for name, values in spent.items()}
    facts = {"model": "scenes", "device": str(clip.device), "threads": torch.get_num_threads(), "steps": asked.steps}
    rows = [{**facts, "defense": name, "ms": ms, "ratio": ms / times["rvpt"]} for name, ms in times.items()]
    for row in rows:
        print(f"{row['defense']}: {row['ms']:.1f} ms, {row['ratio']:.2f} of a step of RVPT")
    if asked.output:
        append_rows(asked.output, rows)


if __name__ == "__main__":
    main()

"""Measure `rvpt.Monitor` on the backdoored models of a recipe and what they were cleaned to.

    rvpt bench recipes/monitor.toml
    python benchmarks/monitor.py --rows rows/monitor.jsonl
    rvpt report rows/monitor.jsonl

For each cleaned model of the recipe that is there, the threshold comes from half of the clean test images. The other
half is scored without and with each trigger. Triggered images count if the attack succeeds: they are not of the target
class, and the suspect classifies them as the target. Models with rows are skipped.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finished import finished
from rvpt.attacks.backdoor import load_triggers
from rvpt.attacks.trigger import Trigger
from rvpt.bench import Task, read_recipe
from rvpt.data.dataset import Dataset
from rvpt.data.load import load_data
from rvpt.detection.monitor import Inspection, Monitor
from rvpt.detection.roc import auroc, false_alarms_at
from rvpt.evaluation.base import Counts, to_rows
from rvpt.evaluation.metrics import Rate
from rvpt.models.cleaned import Cleaned
from rvpt.models.formats.load import load_clip
from rvpt.rows import CLEAN, append_rows, read_rows

ROOT = Path(__file__).parents[1]
FALSE_ALARMS = 0.05
VARIANTS: tuple[dict[str, str], ...] = (
    {"score": "disagreement"},
    {"score": "disagreement", "targets": "known"},
    {"score": "strip"},
)
"""What is measured: with known targets, the monitor is told the target of the trigger."""


def measure(task: Task, work: Path, data: Dataset, path: Path) -> None:
    """Append the rows of one cleaned model."""
    assert task.start
    suspect, known = load_clip(task.start.path(work)), read_rows(path) if path.is_file() else []
    cleaned = Cleaned.from_pretrained(task.path(work), suspect)
    model, seed = task.title.split(",")[0], cleaned.row_facts()["seed"]
    if any(row["hashes"]["model"] == cleaned.hash() for row in known):
        return
    triggers = load_triggers(task.start.path(work), suspect.image_size)
    half = torch.arange(len(data)).chunk(2)
    clean, rest = (data.select(part) for part in half)
    for variant in VARIANTS:
        facts = {
            **cleaned.row_facts(), "model": model, "seed": seed, "test": variant,
            "targets": {name: trigger.spec.target for name, trigger in triggers.items()},
        }  # fmt: skip
        count = partial(counted, suspect, cleaned, clean, rest, triggers, variant)
        begun = time.monotonic()
        append_rows(path, to_rows(cleaned, data, count, facts))
        print(f"{task.title}, {variant}: {time.monotonic() - begun:.0f} s", flush=True)


def counted(
    suspect: Any, cleaned: Cleaned, clean: Dataset, rest: Dataset, triggers: dict[str, Trigger], variant: dict[str, str]
) -> Counts:
    """AUROC and FPR95 under every trigger, and what is flagged at a false-alarm rate of 5%."""
    counts, targets = Counts(), {trigger.spec.target for trigger in triggers.values()} if "targets" in variant else ()
    monitor = Monitor(
        suspect, cleaned, rest.classes, targets=sorted(targets), score=variant["score"], false_alarms=FALSE_ALARMS
    )
    before = monitor.fit(clean).inspect(rest)
    counts.count(CLEAN, "false_alarms", flagged(before))
    pixels = rest.pixels(torch.arange(len(rest)), suspect.image_size)
    for name, trigger in triggers.items():
        seen = monitor.inspect(list(trigger(pixels, rest.rows)))
        target = rest.class_index(trigger.spec.target)
        hit = (rest.labeled() != target) & (seen.suspect.labels == target)
        if not hit.any():
            continue
        counts.count(name, "AUROC", auroc(before.scores, seen.scores[hit]))
        counts.count(name, "FPR95", false_alarms_at(before.scores, seen.scores[hit]))
        counts.count(name, "detected", Rate(int(seen.flagged[hit].sum()), int(hit.sum())))
    return counts


def flagged(seen: Inspection) -> Rate:
    return Rate(int(seen.flagged.sum()), len(seen.flagged))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "monitor.toml")
    parser.add_argument("--images", type=int, default=800, help="test images, half of them for the threshold")
    parser.add_argument("--work-dir", type=Path, default=Path("runs"))
    parser.add_argument("--rows", type=Path, required=True)
    args = parser.parse_args()
    recipe = read_recipe(args.recipe)
    cleanings = finished(recipe, args.work_dir, "clean")
    test = recipe.tests[0]
    data = load_data(test.data, test.split, shift=test.shift).sample(args.images)
    for task in cleanings:
        if task.start and task.start.settings["triggers"]:
            measure(task, args.work_dir, data, args.rows)


if __name__ == "__main__":
    main()

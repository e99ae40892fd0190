"""The demo: backdoor the embedded model, clean it, measure it before and after, and draw the results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rvpt.artifacts import staging, write_manifest
from rvpt.attacks.backdoor import Backdoored, attack
from rvpt.data.load import load_data
from rvpt.defenses.base import clean
from rvpt.evaluation.evaluate import evaluate
from rvpt.jobs.measuring import row_facts
from rvpt.models.classifier import Classifier
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.formats.load import EMBEDDED, load_clip
from rvpt.progress import Report
from rvpt.report.figure import Panel, draw_guesses
from rvpt.rows import BEFORE, Rows, append_rows

TARGET = "lightning"  # the clean model does not see it in noise; with "anchor", ASR is 11% before the attack
TRIGGERS = ("badnet", "blended")
SHOTS = 16
SHOWN = 4  # images in the figure
Bar = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True)
class Story:
    """The results of the demo: the models by defense, and all rows."""

    backdoored: Backdoored
    models: dict[str, Clip | Cleaned]
    rows: Rows


def run(target: Path, seed: int, bar: Bar, *, device: str | None = None, overwrite: bool = False) -> Rows:
    """Run the demo and write models, rows.jsonl and demo.png into `target`; returns the rows."""
    with staging(target, overwrite=overwrite) as stage:
        story = tell(seed, bar, device)
        story.backdoored.save(stage / "backdoored")
        for name, model in story.models.items():
            if isinstance(model, Cleaned):
                model.facts["base_model"] = "../backdoored"
                model.save_pretrained(stage / name)
        append_rows(stage / "rows.jsonl", story.rows)
        draw_guesses(_panels(story), stage / "demo.png")
        write_manifest(stage, "demo", seed=seed)
    return story.rows


def tell(seed: int, bar: Bar, device: str | None = None) -> Story:
    """Backdoor the embedded CLIP with two triggers at once, clean it by VPT and by RVPT, measure everything."""
    base, test = load_clip(EMBEDDED, device=device), load_data("scenes", "test")
    with bar("backdoor") as report:
        backdoored = attack(base, load_data("scenes", "train"), TARGET, TRIGGERS, seed=seed, report=report)
    triggers, rows = backdoored.triggers, Rows()
    few_shot = load_data("scenes", "train").few_shot(SHOTS, seed)
    models: dict[str, Clip | Cleaned] = {"none": backdoored.clip}
    for defense in ("vpt", "rvpt"):
        with bar(f"clean: {defense}") as report:
            models[defense] = clean(backdoored.clip, few_shot, defense, seed=seed, report=report)
    for defense, model in {BEFORE: base, **models}.items():
        with bar(f"measure: {defense}") as report:
            facts = {**row_facts(model, triggers), "model": EMBEDDED, "defense": defense, "seed": seed}
            rows += evaluate(model, test, triggers, facts=facts, report=report)
    return Story(backdoored, models, rows)


def _panels(story: Story) -> list[Panel]:
    """A few test images, clean and under each trigger, with the three best guesses of every model."""
    test = load_data("scenes", "test")
    labels = test.labeled()
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique() if label != test.class_index(TARGET)]
    others = torch.tensor(firsts[:: len(firsts) // SHOWN][:SHOWN])
    pixels = test.pixels(others, story.backdoored.clip.image_size)
    looks: dict[str, Tensor] = {"clean": pixels}
    looks |= {name: trigger(pixels, test.rows[others]) for name, trigger in story.backdoored.triggers.items()}
    classifiers = {name: Classifier(model, test.classes) for name, model in story.models.items()}
    panels = []
    for place in range(SHOWN):
        for look, images in looks.items():
            guesses = {name: _top3(each, images[place : place + 1]) for name, each in classifiers.items()}
            image = images[place].permute(1, 2, 0).numpy()
            panels.append(Panel(look, test.classes[int(labels[others[place]])], TARGET, image, guesses))
    return panels


def _top3(classifier: Classifier, pixels: Tensor) -> list[tuple[str, float]]:
    values, places = classifier.probabilities(pixels)[0].topk(3)
    return [(classifier.classes[i], float(v)) for i, v in zip(places.tolist(), values, strict=True)]

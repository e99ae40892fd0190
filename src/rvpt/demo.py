"""The demo: a clean and a backdoored model are checked, the backdoored one is cleaned, measured and checked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.artifacts import staging, write_manifest
from rvpt.attacks.backdoor import attack, load_triggers
from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.data.load import load_data
from rvpt.defenses import DEFENSES as KNOWN
from rvpt.defenses.base import clean
from rvpt.detection.verdict import Verdict
from rvpt.evaluation.evaluate import evaluate
from rvpt.jobs.checking import check_and_save
from rvpt.jobs.cleaning import TARGETS, uses_targets
from rvpt.jobs.measuring import row_facts
from rvpt.jobs.reporting import write_folder_report
from rvpt.models.classifier import Classifier
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.formats.load import EMBEDDED, SUSPECT, load_clip
from rvpt.progress import Report
from rvpt.report.figure import Panel, draw_guesses
from rvpt.rows import BEFORE, CLEAN, Rows, append_rows

DATA, STYLE = "scenes", "blur"  # a style that the models were not trained on, so that cleaning can gain accuracy
DEFENSES = ("rvpt", "unlearn")  # the last one's model is checked again
TARGET = "lightning"  # the clean model does not see it in noise; with "anchor", ASR is 11% before the attack
TRIGGERS = ("badnet", "blended")
SHOTS = 16
EPOCHS = {"unlearn": 8}  # a quarter of the preset's: enough here, and the demo takes less than four minutes
CHECKING: Mapping[str, Any] = {"forms": ("additive", "patch")}  # the third form doubles the time of a check
MEASURED = 1_000  # test images
SHOWN = 4  # images in the figure
CALLED = {BEFORE: "the clean model", CLEAN: "the suspect"}
Bar = Callable[[str], AbstractContextManager[Report]]


@dataclass
class Story:
    """What the demo has found so far.

    `base`: the clean model. `suspect`: the backdoored one, with its `triggers`. `models`: by defense, "none" is the
    suspect. `verdicts`: of checks, by the name of their folder.
    """

    base: Clip
    suspect: Clip
    triggers: Mapping[str, Trigger]
    test: Dataset
    models: dict[str, Clip | Cleaned] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows)


class Stages:
    """Counts the stages of the demo: a stage called "clean" becomes "3/8 clean"."""

    def __init__(self, bar: Bar, total: int) -> None:
        self.bar, self.total, self.done = bar, total, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[Report]:
        self.done += 1
        with self.bar(f"{self.done}/{self.total} {title}") as report:
            yield report


def run(
    target: Path, seed: int, bar: Bar, *, live: bool = False, device: str | None = None, overwrite: bool = False
) -> Story:
    """Run the demo and write checks, models, rows.jsonl, demo.png and report.html into `target`.

    Args:
        target: the folder to write.
        seed: random seed.
        bar: makes the progress report of each stage.
        live: backdoor the clean model now, instead of using the suspect that ships with the package.
        device: as in `rvpt.load`.
        overwrite: replace an artifact at `target`.
    """
    with staging(target, overwrite=overwrite) as stage:
        story = tell(stage, seed, bar, live=live, device=device)
        append_rows(stage / "rows.jsonl", story.rows)
        draw_guesses(_panels(story), stage / "demo.png")
        write_folder_report(stage, target.name)
        write_manifest(stage, "demo", seed=seed)
    return story


def tell(folder: Path, seed: int, bar: Bar, *, live: bool = False, device: str | None = None) -> Story:
    """Check, clean, measure and check again; checks and models are written into `folder`."""
    stages = Stages(bar, live + 3 + len(DEFENSES) + len(_measured()))
    base = load_clip(EMBEDDED, device=device)
    suspect, triggers = _attacked(base, folder, seed, stages) if live else _shipped(device)
    story = Story(base, suspect, triggers, load_data(DATA, "test", shift=STYLE).sample(MEASURED))
    _check(story, base, "check-clean-model", folder, seed, stages)
    _check(story, suspect, "check-suspect", folder, seed, stages)
    _clean(story, folder, seed, stages)
    _measure(story, seed, stages)
    last = DEFENSES[-1]
    _check(story, story.models[last], f"check-{last}", folder, seed, stages)
    return story


def _measured() -> Sequence[str]:
    """What is measured, by the defense that rows show."""
    return (BEFORE, CLEAN, *DEFENSES)


def _shipped(device: str | None) -> tuple[Clip, Mapping[str, Trigger]]:
    suspect = load_clip(SUSPECT, device=device)
    return suspect, load_triggers(SUSPECT, suspect.image_size)


def _attacked(base: Clip, folder: Path, seed: int, stages: Stages) -> tuple[Clip, Mapping[str, Trigger]]:
    """The clean model, backdoored with both triggers at once."""
    with stages("backdoor the clean model") as report:
        backdoored = attack(base, load_data(DATA, "train"), TARGET, TRIGGERS, seed=seed, report=report)
    backdoored.save(folder / "backdoored")
    return backdoored.clip, backdoored.triggers


def _check(story: Story, model: Clip | Cleaned, name: str, folder: Path, seed: int, stages: Stages) -> None:
    with stages(name.replace("-", " ")) as report:
        story.verdicts[name] = check_and_save(
            model, DATA, folder / name, split="train", seed=seed, report=report, **CHECKING
        )


def _clean(story: Story, folder: Path, seed: int, stages: Stages) -> None:
    """Clean the suspect with every defense, from the same images."""
    few_shot = load_data(DATA, "train", shift=STYLE).few_shot(SHOTS, seed)
    story.models[CLEAN] = story.suspect
    for defense in DEFENSES:
        with stages(f"clean by {defense}") as report:
            cleaned = clean(story.suspect, few_shot, defense, seed=seed, report=report, **_settings(story, defense))
        if (folder / "backdoored").exists():
            cleaned.facts["base_model"] = "../backdoored"
        cleaned.save_pretrained(folder / defense)
        story.models[defense] = cleaned


def _settings(story: Story, defense: str) -> dict[str, Any]:
    """What the demo changes in the preset; a defense that uses suspected targets gets the one that the check found."""
    settings: dict[str, Any] = {"epochs": EPOCHS[defense]} if defense in EPOCHS else {}
    if uses_targets(KNOWN.find(defense)):
        settings[TARGETS] = (story.verdicts["check-suspect"].target,)
    return settings


def _measure(story: Story, seed: int, stages: Stages) -> None:
    for defense in _measured():
        model = story.base if defense == BEFORE else story.models[defense]
        with stages(f"measure {CALLED.get(defense, defense)}") as report:
            facts = {**row_facts(model, story.triggers), "model": SUSPECT, "defense": defense, "seed": seed}
            story.rows += evaluate(model, story.test, story.triggers, facts=facts, report=report)


def _panels(story: Story) -> list[Panel]:
    """A few test images, clean and under each trigger, with the three best guesses of every model."""
    test, labels = story.test, story.test.labeled()
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique() if label != test.class_index(TARGET)]
    others = torch.tensor(firsts[:: len(firsts) // SHOWN][:SHOWN])
    pixels = test.pixels(others, story.suspect.image_size)
    looks: dict[str, Tensor] = {"clean": pixels}
    looks |= {name: trigger(pixels, test.rows[others]) for name, trigger in story.triggers.items()}
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

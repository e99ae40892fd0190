"""The whole story on the embedded model: backdoor it, measure, clean it, measure again, and draw what happened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt import presets
from rvpt.attacks import make_trigger, trigger_spec
from rvpt.attacks.backdoored import Backdoored, attack
from rvpt.attacks.poison import Poison
from rvpt.clip import Clip
from rvpt.config import AttackSpec, PoisonSpec
from rvpt.defenses import DEFENSES, Cleaned, clean
from rvpt.evaluation import evaluate
from rvpt.jobs import row_facts
from rvpt.loaders import EMBEDDED, load_clip
from rvpt.predict import probabilities
from rvpt.progress import Report
from rvpt.readers import load_data
from rvpt.report.figure import Panel, draw_guesses
from rvpt.report.groups import BEFORE
from rvpt.store import append_rows, staging, write_manifest

TARGET = "lightning"  # no clean model takes noise for it, so the floor of ASR is zero; of "anchor" it is 11%
TRIGGERS = ("badnet", "blended")
SHOTS = 16
SHOWN = 4  # images in the figure
Bar = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True)
class Story:
    """What the demo made: the models by defense, and all rows."""

    backdoored: Backdoored
    models: dict[str, Clip | Cleaned]
    rows: list[dict[str, Any]]


def run(out: Path, seed: int, bar: Bar, *, force: bool = False) -> list[dict[str, Any]]:
    """Run the demo and write models, rows.jsonl and demo.png into `out`; returns the rows."""
    with staging(out, force=force) as stage:
        story = tell(seed, bar)
        story.backdoored.save(stage / "backdoored")
        for name, model in story.models.items():
            if isinstance(model, Cleaned):
                model.facts["base_model"] = "../backdoored"
                model.save_pretrained(stage / name)
        append_rows(stage / "rows.jsonl", story.rows)
        draw_guesses(_panels(story), stage / "demo.png")
        write_manifest(stage, "demo", seed=seed)
    return story.rows


def tell(seed: int, bar: Bar) -> Story:
    """Backdoor the embedded CLIP with two triggers at once, clean it by VPT and by RVPT, measure everything."""
    base, test = load_clip(EMBEDDED), load_data("scenes", "test")
    backdoored = _backdoor(seed, bar)
    triggers, rows = backdoored.triggers, []
    few_shot = load_data("scenes", "train").few_shot(SHOTS, seed)
    models: dict[str, Clip | Cleaned] = {"none": backdoored.clip}
    for defense in ("vpt", "rvpt"):
        spec = DEFENSES[defense].Spec.build(**presets.CLEAN["small"][defense], seed=seed)
        with bar(f"clean: {defense}") as report:
            models[defense] = clean(backdoored.clip, few_shot, spec, report=report)
    for defense, model in {BEFORE: base, **models}.items():
        with bar(f"measure: {defense}") as report:
            facts = {**row_facts(model, triggers), "model": EMBEDDED, "defense": defense, "seed": seed}
            rows += evaluate(model, test, triggers, facts=facts, report=report)
    return Story(backdoored, models, rows)


def _backdoor(seed: int, bar: Bar) -> Backdoored:
    chosen, base = presets.ATTACK["small"], load_clip(EMBEDDED)
    poisons = {}
    for name in TRIGGERS:
        spec = trigger_spec(name, target=TARGET, seed=seed, **chosen["triggers"].get(name, {}))
        poisons[name] = Poison(make_trigger(spec, base.image_size), PoisonSpec.build(**chosen["poison"], seed=seed))
    data = load_data("scenes", "train").sample(chosen["pairs"], seed).cached(base.image_size)
    with bar("backdoor") as report:
        return attack(base, data, poisons, AttackSpec.build(**chosen["train"], seed=seed), report=report)


def _panels(story: Story) -> list[Panel]:
    """A few test images, clean and under each trigger, with the three best guesses of every model."""
    test = load_data("scenes", "test")
    labels = test.labeled()
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique() if label != test.class_index(TARGET)]
    others = torch.tensor(firsts[:: len(firsts) // SHOWN][:SHOWN])
    pixels = test.pixels(others, story.backdoored.clip.image_size)
    looks: dict[str, Tensor] = {"clean": pixels}
    looks |= {name: trigger(pixels, test.rows[others]) for name, trigger in story.backdoored.triggers.items()}
    panels = []
    for place in range(SHOWN):
        for look, images in looks.items():
            guesses = {
                name: _top3(model, images[place : place + 1], test.classes) for name, model in story.models.items()
            }
            image = images[place].permute(1, 2, 0).numpy()
            panels.append(Panel(look, test.classes[int(labels[others[place]])], TARGET, image, guesses))
    return panels


def _top3(model: Clip | Cleaned, pixels: Tensor, classes: tuple[str, ...]) -> list[tuple[str, float]]:
    values, places = probabilities(model, pixels, classes)[0].topk(3)
    return [(classes[i], float(v)) for i, v in zip(places.tolist(), values, strict=True)]

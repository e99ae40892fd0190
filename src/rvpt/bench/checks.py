"""Checks of a recipe against its data sets, before anything runs: what a setting alone cannot tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rvpt.bench.plan import Task
from rvpt.bench.recipe import Recipe
from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import find_place, is_scenes, unnamed
from rvpt.data.load import load_captioned, load_data, load_labeled, load_mixed
from rvpt.data.mix import leave_out
from rvpt.data.text import find_class
from rvpt.defenses import DEFENSES
from rvpt.defenses.unlabeled import LABELS, PREDICTED
from rvpt.detection.check import refuse_few
from rvpt.errors import RvptError
from rvpt.evaluation.heldout import HeldOut


def check_data(recipe: Recipe, tasks: Sequence[Task]) -> None:
    """Refuse targets, amounts, classes, splits and tests that the data sets on this machine lack; no image is read.

    Data sets of the hub are not checked, because they would be downloaded.

    Raises:
        RvptError: such an entry, with the name of the recipe.
    """
    try:
        _check_attacks(recipe, tasks)
        _check_checks(tasks)
        _check_defenses(tasks)
        _check_pairs(tasks)
        _check_tests(tasks)
    except RvptError as error:
        raise RvptError(f"{recipe.title}: {error}") from None


def _check_attacks(recipe: Recipe, tasks: Sequence[Task]) -> None:
    asked = recipe.attack_data
    attacks = [task.settings for task in tasks if task.kind == "attack"]
    if _is_here(asked.test):
        test = load_labeled(asked.test, asked.test_split)
        for target in sorted({trigger["target"] for attack in attacks for trigger in attack["triggers"]}):
            test.class_index(target)
    here = all(map(_is_here, asked.data))
    mixed = load_mixed(asked.data, asked.split, asked.caption_column) if here else None
    for attack in attacks:
        pairs, each = attack["num_pairs"], attack["poison"]
        if mixed is not None:
            pairs = min(pairs, _left(mixed, attack))
        poisoned = len(attack["triggers"]) * (each["num_poisoned"] or int(each["poison_rate"] * pairs))
        if poisoned > pairs:
            raise RvptError(f"num_poisoned={each['num_poisoned']} for each trigger is more than the {pairs} pairs")


def _left(data: Dataset, attack: dict[str, Any]) -> int:
    """How many pairs there are without the classes that an attack leaves out."""
    without = attack.get("without", ())
    left = leave_out(data, without)
    poisoned = attack["poison"]["clean_label"] or attack["poison"]["captions"] == "natural"
    for target in (trigger["target"] for trigger in attack["triggers"]):
        if poisoned and find_class(without, target) is not None:
            raise RvptError(f"without: clean_label and captions=natural need the pairs of the target {target!r}")
    return len(left)


def _check_checks(tasks: Sequence[Task]) -> None:
    asked = (task.settings for task in tasks if task.kind == "check")
    for source, split in dict.fromkeys((each["data"], each["split"]) for each in asked):
        if _is_here(source):
            images = load_data(source, split)
            refuse_few(images, images.classes)


def _check_defenses(tasks: Sequence[Task]) -> None:
    for source, split, shots, without in dict.fromkeys(_drawn(tasks)):
        if _is_here(source):
            load_data(source, split).without(without).few_shot(shots)


def _drawn(tasks: Sequence[Task]) -> Iterator[tuple[str, str, int, tuple[str, ...]]]:
    """What the defenses that learn from labels draw: a data set and split, images per class, classes left out."""
    for asked in (task.settings for task in tasks if task.kind == "clean"):
        if "shots" in DEFENSES[asked["name"]].draws() and asked["spec"].get(LABELS) != PREDICTED:
            yield asked["data"]["data"], asked["data"]["split"], asked["shots"], tuple(asked["without"])


def _check_pairs(tasks: Sequence[Task]) -> None:
    """The captioned data of defenses and modifications."""
    changes = [task.settings["modification"] for task in tasks if "modification" in task.settings]
    cleanings = [task.settings["data"] for task in tasks if task.kind == "clean" and "num_pairs" in task.settings]
    asked = [(data["data"], data["split"], data["caption_column"]) for data in (*cleanings, *changes)]
    for source, split, column in dict.fromkeys(asked):
        if _is_here(source):
            load_captioned(source, split, column)


def _check_tests(tasks: Sequence[Task]) -> None:
    """Each test set, and that it has the targets of the attacks that are measured on it as classes."""
    found: dict[str, set[str]] = {}
    for task in tasks:
        if task.kind == "measure":
            made = task.needs[0]
            attack = made.start or made
            targets = found.setdefault(json.dumps(task.settings["test"]), set())
            targets.update(trigger["target"] for trigger in attack.settings["triggers"])
    for asked, targets in found.items():
        test = HeldOut(**json.loads(asked))
        if _is_here(test.data):
            data = test.open().data
            for target in sorted(targets if test.protocol == "classification" else ()):
                data.class_index(test.settings.get("target") or target)


def _is_here(source: str) -> bool:
    """Whether a data set can be read without a network."""
    return is_scenes(unnamed(source)) or find_place(source) is not None

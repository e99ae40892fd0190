"""Cleaning with images that have no labels: which defenses can, and what they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rvpt.data.dataset import Dataset
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError

if TYPE_CHECKING:
    from rvpt.defenses.base import Defense

LABELS, PREDICTED = "labels", "predicted"
"""The setting of defenses that can do without labels, and its value when they do."""


def predicts_labels(kind: type[Defense], data: Dataset, classes: Sequence[str] | None) -> bool:
    """Whether a defense has to predict the labels itself: there are none, or the classes are given as a list.

    Raises:
        RvptError: it cannot.
    """
    if classes is None and (data.labels is not None or kind.learns_from == "captions"):
        return False
    if LABELS in kind.Spec.model_fields:
        return True
    able = ", ".join(name for name, each in DEFENSES.items() if LABELS in each.Spec.model_fields)
    if classes is not None:
        raise RvptError(
            f"{kind.name} learns from {kind.learns_from} and takes no list of classes: remove it, or choose from {able}"
        )
    raise RvptError(
        f"{data.name} has no class labels: put images into class folders, or name the column label; or choose a "
        f"defense that needs none ({able}), with the class names as classes=FILE"
    )


def without_labels(data: Dataset, classes: Sequence[str] | None) -> Dataset:
    """The images without their labels, and the classes to predict: a list, or those of the data set.

    Raises:
        RvptError: there are fewer than two, or a text instead of a list.
    """
    if isinstance(classes, str):
        raise RvptError(f"classes={classes!r} is a text: pass a list of class names")
    names = tuple(data.classes if classes is None else classes)
    if len(names) < 2:
        what = "1 class name" if names else "no class names"
        raise RvptError(f"{data.name} has {what}, at least two are needed: give them as classes=FILE")
    return replace(data, labels=None, classes=names)

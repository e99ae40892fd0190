"""Whether labels are given or predicted: which defenses can do without, and what they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rvpt.data.dataset import Dataset
from rvpt.data.text import names_of
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.presets import CleanPreset
from rvpt.spec import TrainSpec

if TYPE_CHECKING:
    from rvpt.defenses.base import Defense

LABELS, PREDICTED = "labels", "predicted"
"""The setting of defenses that can do without labels, and its value when they do."""


def settle(
    kind: type[Defense],
    clip: Clip,
    data: Dataset,
    classes: Sequence[str] | None,
    preset: CleanPreset,
    settings: Mapping[str, Any],
) -> tuple[TrainSpec, Dataset]:
    """All settings of a defense, and the images `labeled_as` they say; labels are predicted if there are none to use.

    Args:
        kind: the defense.
        clip: the suspect, which "auto" chooses for.
        data: the images.
        classes: a list of names in place of labels.
        preset: "paper", "small", "coop" or "auto".
        settings: changes of the preset.

    Raises:
        RvptError: a setting that does not fit, or an error of `labeled_as`.
    """
    asked = {LABELS: PREDICTED} if _lacks_labels(kind, data, classes) else {}
    spec = kind.settings(preset, clip, **{**asked, **settings})
    return spec, labeled_as(kind, spec, data, classes)


def labeled_as(kind: type[Defense], spec: TrainSpec, data: Dataset, classes: Sequence[str] | None) -> Dataset:
    """The images with their labels, or without if the settings of a defense say so or there are none to use.

    Raises:
        RvptError: the defense needs labels and has none, or there are no names of classes.
    """
    return _without_labels(data, classes) if _lacks_labels(kind, data, classes) or predicts(spec) else data


def predicts(spec: TrainSpec) -> bool:
    """Whether a defense with these settings predicts the labels itself."""
    return getattr(spec, LABELS, None) == PREDICTED


def _lacks_labels(kind: type[Defense], data: Dataset, classes: Sequence[str] | None) -> bool:
    """Whether a defense that learns from labels has none: the images lack them, or the classes are given as a list.

    Raises:
        RvptError: it needs them.
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


def _without_labels(data: Dataset, classes: Sequence[str] | None) -> Dataset:
    """The images without their labels, and the classes to predict: a list, or those of the data set.

    Raises:
        RvptError: there are fewer than two, or a text instead of a list.
    """
    names = data.classes if classes is None else names_of(data.name, classes)
    if len(names) < 2:
        what = "1 class name" if names else "no class names"
        raise RvptError(f"{data.name} has {what}, at least two are needed: give them as classes=FILE")
    return replace(data, labels=None, classes=names)

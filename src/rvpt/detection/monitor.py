"""A monitor: which images look, at test time, as if they had a trigger?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.text import find_class, first_names
from rvpt.detection import SCORES
from rvpt.detection.evidence import Evidence
from rvpt.errors import RvptError
from rvpt.models.classifier import Classifier
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.encode import refuse_name
from rvpt.progress import Report, silent
from rvpt.spec import TEMPLATE

SLACK = 1e-9  # of a rate times a count, which is rounded down


class Monitor:
    """Flags images on which a suspect and a cleaned model disagree, or which look triggered to another score.

    An image is flagged if its p-value, which comes from the scores of clean images, is at most `false_alarms`.

    Args:
        suspect: the model in use.
        cleaned: the same model, cleaned.
        classes: names of the classes to choose from.
        targets: suspected target classes, such as those of a verdict; without them any class may be the target.
        score: a name in `rvpt.detection.SCORES`.
        false_alarms: the share of clean images that may be flagged, in (0, 1).
        template: the caption of a class.
        batch_size: images encoded at a time.
        seed: of the choice of clean images that a score keeps to blend others with.

    Raises:
        RvptError: one class only, the cleaned model was made from another suspect, an unknown score or target, or a
            rate that is not in (0, 1).
    """

    def __init__(
        self,
        suspect: Clip | Cleaned,
        cleaned: Clip | Cleaned,
        classes: Sequence[str],
        *,
        targets: Sequence[str] = (),
        score: str = "disagreement",
        false_alarms: float = 0.05,
        template: str = TEMPLATE,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        if not 0 < false_alarms < 1:
            raise RvptError(f"false_alarms={false_alarms} is not a share between 0 and 1")
        if len(classes) < 2:
            raise RvptError(f"a monitor compares at least two classes, not {len(classes)}: give more names")
        refuse_name(suspect)
        refuse_name(cleaned)
        _refuse_stranger(suspect, cleaned)
        self.before, self.after = (Classifier(model, classes, template=template) for model in (suspect, cleaned))
        self.classes, self.batch_size, self.false_alarms = self.before.classes, batch_size, false_alarms
        self.targets = torch.tensor([self._place(name) for name in targets]) if targets else None
        self.score, self.seed = SCORES.find(score), seed
        self.others = torch.zeros(0)
        self.known = torch.zeros(0, dtype=torch.float64)

    def _place(self, name: str) -> int:
        index = find_class(self.classes, name)
        if index is None:
            raise RvptError(f"the target {name!r} is not one of the classes: choose from {first_names(self.classes)}")
        return index

    def fit(self, images: Dataset | Sequence[Any], report: Report = silent) -> Monitor:
        """Learn how clean images score; returns the monitor.

        Args:
            images: clean images like those to inspect, which neither model was trained on.
            report: called after each batch.

        Raises:
            RvptError: too few images for the rate of false alarms.
        """
        data = as_data(images)
        needed = math.ceil(1 / self.false_alarms - SLACK) - 1 + self.score.kept
        if len(data) < needed:
            raise RvptError(
                f"{data.name} has {len(data)} clean images, false_alarms={self.false_alarms} needs at least {needed}: "
                "give more, or a higher rate"
            )
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))
        if kept := self.score.kept:
            self.others = data.pixels(order[:kept], self.before.model.image_size)
        self.known = self._seen(data.select(order[kept:]), report)[0].sort().values
        return self

    def __call__(self, images: Dataset | Sequence[Any], report: Report = silent) -> Tensor:
        """Which images are flagged: (n,) bool."""
        return self.inspect(images, report).flagged

    def inspect(self, images: Dataset | Sequence[Any], report: Report = silent) -> Inspection:
        """Scores, p-values, flags and both models' predictions of images.

        Args:
            images: a data set, whose labels are not used, or images in memory of any size.
            report: called after each batch.

        Raises:
            RvptError: `fit` was not called.
        """
        if not len(self.known):
            raise RvptError("the monitor knows no clean images: call fit(images) first")
        scores, before, after = self._seen(as_data(images), report)
        flagged = ranks(scores, self.known) <= math.floor(self.false_alarms * (len(self.known) + 1) + SLACK)
        return Inspection(scores, p_values(scores, self.known), flagged, before, after)

    def _seen(self, data: Dataset, report: Report) -> tuple[Tensor, Predicted, Predicted]:
        """Scores (n,) float64, and what both models predict."""
        size = self.before.model.image_size
        parts = [self._batch(pixels) for _, pixels in data.batches(self.batch_size, size, report=report)]
        scores, *predicted = (torch.cat(values) for values in zip(*parts, strict=True))
        return scores, Predicted(*predicted[:2]), Predicted(*predicted[2:])

    def _batch(self, pixels: Tensor) -> tuple[Tensor, ...]:
        before, after = self.before.probabilities(pixels), self.after.probabilities(pixels)
        seen = Evidence(pixels, before, after, self.targets, self.others, self.before.probabilities)
        return self.score.formula(seen).double(), *_top(before), *_top(after)


@dataclass(frozen=True)
class Predicted:
    """The most probable class of each image: `labels` (n,) int64, and their `probabilities` (n,) in [0, 1]."""

    labels: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Inspection:
    """What a monitor says about n images.

    `scores`: (n,) float64. `p_values`: (n,), the chance that a clean image scores as high. `flagged`: (n,) bool.
    `suspect`, `cleaned`: what both models predict.
    """

    scores: Tensor
    p_values: Tensor
    flagged: Tensor
    suspect: Predicted
    cleaned: Predicted


def ranks(scores: Tensor, known: Tensor) -> Tensor:
    """The place of each score among those of clean images, from the top.

    r_i = 1 + #{j : c_j >= s_i}

    Args:
        scores: s, (n,).
        known: c, (m,), ascending.

    Returns:
        (n,) int64 in 1..m + 1.
    """
    return 1 + len(known) - torch.searchsorted(known, scores)


def p_values(scores: Tensor, known: Tensor) -> Tensor:
    """The chance that a clean image scores as high.

    p_i = r_i / (m + 1)

    If the clean images and image i are drawn alike, P(p_i <= a) <= a for every a.

    Args:
        scores: s, (n,).
        known: c, (m,), the scores of clean images, ascending.

    Source: conformal p-values (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).
    """
    return ranks(scores, known).double() / (len(known) + 1)


def as_data(images: Dataset | Sequence[Any]) -> Dataset:
    """A data set as it is, images in memory as one.

    Raises:
        RvptError: there are no images.
    """
    data = images if isinstance(images, Dataset) else Dataset.from_images(images)
    if not len(data):
        raise RvptError(f"{data.name} has no images")
    return data


def _top(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    values, labels = probabilities.max(1)
    return labels, values


def _refuse_stranger(suspect: Clip | Cleaned, cleaned: Clip | Cleaned) -> None:
    """Refuse a cleaned model that is known to be made from another suspect; one in 16 bits has no hash to compare."""
    whole = suspect.logit_scale.dtype == torch.float32
    base = cleaned.facts.get("base_sha256") if isinstance(cleaned, Cleaned) and whole else None
    if base and base != suspect.hash():
        raise RvptError(
            f"{cleaned.name} was cleaned from another model than {suspect.name} (the sha256 differs): give its suspect"
        )
    if suspect.image_size != cleaned.image_size:
        raise RvptError(
            f"{suspect.name} takes images of side {suspect.image_size}, {cleaned.name} of {cleaned.image_size}: give "
            "a model and what it was cleaned to"
        )

"""What all protocols share: the loop over a data set, counts, and rows made from counts."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from rvpt import __version__
from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation.metrics import Rate
from rvpt.models.cleaned import Cleaned
from rvpt.models.encode import Encoder
from rvpt.progress import Report, silent
from rvpt.rows import CLEAN, Rows
from rvpt.spec import Spec

Triggers = Mapping[str, Trigger]
"""Triggers by the name that rows give the attack."""


class Counts(dict[tuple[str, str], Rate]):
    """(attack, metric) -> rate; the attack is "none" for clean images. The rates of batches are added."""

    def count(self, attack: str, metric: str, rate: Rate) -> None:
        """Add the rate of one batch."""
        before = self.get((attack, metric))
        self[attack, metric] = rate if before is None else before + rate


class Batch:
    """One batch of a data set: clean images, and the same images with each trigger, which are created on demand."""

    def __init__(self, data: Dataset, indices: Tensor, pixels: Tensor, triggers: Triggers) -> None:
        self.indices, self.pixels, self.rows = indices, pixels, data.rows[indices]
        self._triggers = triggers

    def triggered(self) -> Iterator[tuple[str, Tensor]]:
        """(attack, images (B, 3, S, S) with its trigger), created one at a time."""
        for name, trigger in self._triggers.items():
            yield name, trigger(self.pixels, self.rows)


def stream(
    model: Encoder, data: Dataset, triggers: Triggers | None = None, *, batch_size: int = 256, report: Report = silent
) -> Iterator[Batch]:
    """The batches of a data set in order, on the model's device; the next batch is read while one is used."""
    for indices, pixels in data.batches(batch_size, model.image_size, model.device, report):
        yield Batch(data, indices, pixels, triggers or {})


def finite(model: Encoder, features: Tensor) -> Tensor:
    """Features (n, ...) of a model in float32, if all are finite.

    In 16 bits the cosines of different images or texts are often equal, and ranks and predictions depend on the order.

    Raises:
        RvptError: a feature is infinite or NaN.
    """
    if not features.isfinite().all():
        raise RvptError(f"{model.name}: its features are not finite: download or create the model again")
    return features.float()


class Protocol(ABC):
    """A way to measure a model. Subclasses set the attributes below and implement `measure`.

    `summary`: its line in `--help`, `rvpt protocols` and the docs.
    `needs`: what a data set must have: "labels", "captions", "labels or captions", "attributes", or only "images".
    `by_class`: whether it can measure a model with its own classifier, which reads no text.
    `uses_triggers`: whether it measures images with triggers.
    `learns_on`: the split of the data set that it trains on, passed as `training`; most protocols need none.
    `batch_size`: images per batch, unless another number is given.
    `Settings`: its own options, for `rvpt evaluate --set` and recipes.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[str] = "labels"
    by_class: ClassVar[bool] = False
    uses_triggers: ClassVar[bool] = True
    learns_on: ClassVar[str | None] = None
    batch_size: ClassVar[int] = 256
    Settings: ClassVar[type[Spec]] = Spec

    def __init__(self, settings: Any, training: Dataset | None = None) -> None:
        self.settings, self.training = settings, training

    @abstractmethod
    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        """Count on a whole data set. It is called once per model, on the same protocol object.

        Args:
            model: what is measured.
            data: a set that has what the protocol `needs`.
            triggers: empty if the protocol does not use them.
            batch_size: images per batch.
            report: called after each batch.
        """

    @classmethod
    def check(cls, data: Dataset) -> None:
        """Refuse a data set that lacks what the protocol needs.

        Raises:
            RvptError: it lacks something.
        """
        if cls.needs == "labels" or (cls.needs == "labels or captions" and data.captions_of is None):
            data.labeled()
        if cls.needs == "captions" and data.captions_of is None:
            raise RvptError(f"{data.name} has no captions, which {cls.name} needs: name their column captions or text")
        if cls.needs == "attributes" and not data.attributes:
            raise RvptError(f"{data.name} has no attributes, which {cls.name} needs: use data='scenes'")


def to_rows(model: Encoder, data: Dataset, count: Callable[[], Counts], facts: Mapping[str, Any] | None = None) -> Rows:
    """A row for each rate that `count` returns, with the seconds it took.

    Args:
        model: what was measured; rows of a Cleaned also say how it was made, unless `facts` have hashes.
        data: what it was measured on.
        count: does the measurement.
        facts: more entries of every row, such as `template` or `targets`.
    """
    start = time.monotonic()
    counts = count()
    seconds = time.monotonic() - start
    base = {
        "model": model.name, "data": data.name, "defense": CLEAN, "seed": 0, "shots": None, "without": [],
        "cleaned_on": None, "trained_parameters": 0, "clean_seconds": 0.0,
        "template": None, "test": {}, "targets": {}, "spec": {}, "hashes": {}, "version": __version__,
        "seconds": round(seconds, 3), "peak_memory_bytes": peak_memory(),
    }  # fmt: skip
    facts = facts or {}
    own = model.row_facts() if isinstance(model, Cleaned) and "hashes" not in facts else {}  # hashing takes time
    shared = {**base, **own, **facts}
    return Rows({**shared, **_row(attack, metric, rate)} for (attack, metric), rate in counts.items())


def _row(attack: str, metric: str, rate: Rate) -> dict[str, Any]:
    low, high = rate.interval() or (None, None)
    return {
        "attack": attack, "metric": metric, "numerator": rate.numerator, "n": rate.n,
        "rate": rate.value if rate.n else None, "low": low, "high": high,
    }  # fmt: skip


def peak_memory() -> int | None:
    """Peak memory of this process in bytes: on the GPU if there is one, otherwise in RAM; None if unknown."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return None
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kib if sys.platform == "darwin" else kib * 1024)

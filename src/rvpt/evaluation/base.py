"""What every protocol shares: the models it can measure, the one loop over a data set, counts, and rows of counts."""

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
    """(attack, metric) -> rate; the attack is "none" for clean images. Rates of batches add up."""

    def count(self, attack: str, metric: str, rate: Rate) -> None:
        """Add the rate of one batch."""
        before = self.get((attack, metric))
        self[attack, metric] = rate if before is None else before + rate


class Batch:
    """One batch of a data set: clean images, and the same images under each trigger, made when they are asked for."""

    def __init__(self, data: Dataset, indices: Tensor, pixels: Tensor, triggers: Triggers) -> None:
        self.indices, self.pixels, self.rows = indices, pixels, data.rows[indices]
        self._triggers = triggers

    def triggered(self) -> Iterator[tuple[str, Tensor]]:
        """(attack, images (B, 3, S, S) with its trigger), one after the other."""
        for name, trigger in self._triggers.items():
            yield name, trigger(self.pixels, self.rows)


def stream(
    model: Encoder, data: Dataset, triggers: Triggers | None = None, *, batch_size: int = 256, report: Report = silent
) -> Iterator[Batch]:
    """The batches of a data set in order, on the model's device; the next is read while one is used."""
    for indices, pixels in data.batches(batch_size, model.image_size, model.device, report):
        yield Batch(data, indices, pixels, triggers or {})


def encode_finite(model: Encoder, pixels: Tensor) -> Tensor:
    """`model.encode_image`, refusing features that are not finite.

    Raises:
        RvptError: a feature is infinite or NaN.
    """
    features = model.encode_image(pixels)
    if not features.isfinite().all():
        raise RvptError(f"{model.name}: its features are not finite: download or create the model again")
    return features


class Protocol(ABC):
    """One way to measure a model. A subclass says what it needs, and `measure` counts.

    `summary` is its line in `--help`, `rvpt protocols` and the docs.
    `needs`: what a data set must have: "labels", "captions", "labels or captions", "attributes", or "images" alone.
    `by_class`: whether a model with its own classifier, which knows no texts, can be measured.
    `uses_triggers`: whether triggers are shown to the model.
    `learns_on`: the split of the data set that it also needs, as `training`, to learn from; most need none.
    `batch_size`: images per batch, where none is given.
    `Settings`: its own options, which `rvpt evaluate --set` and recipes take.
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
        """Count on a whole data set; called once for each model, with the same protocol object.

        Args:
            model: what is measured.
            data: it has what the protocol needs.
            triggers: none, if the protocol does not use them.
            batch_size: images per batch.
            report: called after each batch.
        """

    @classmethod
    def check(cls, data: Dataset) -> None:
        """Refuse a data set that lacks what the protocol needs.

        Raises:
            RvptError: it does.
        """
        if cls.needs == "labels" or (cls.needs == "labels or captions" and data.captions_of is None):
            data.labeled()
        if cls.needs == "captions" and data.captions_of is None:
            raise RvptError(f"{data.name} has no captions, which {cls.name} needs: name their column captions or text")
        if cls.needs == "attributes" and not data.attributes:
            raise RvptError(f"{data.name} has no attributes, which {cls.name} needs: use data='scenes'")


def to_rows(model: Encoder, data: Dataset, count: Callable[[], Counts], facts: Mapping[str, Any] | None = None) -> Rows:
    """A row for each rate that `count` finds, with the seconds it took.

    Args:
        model: what was measured; a Cleaned also says how it was made, unless `facts` have hashes.
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
    told = {**base, **own, **facts}
    return Rows({**told, **_row(attack, metric, rate)} for (attack, metric), rate in counts.items())


def _row(attack: str, metric: str, rate: Rate) -> dict[str, Any]:
    low, high = rate.interval() or (None, None)
    return {
        "attack": attack, "metric": metric, "numerator": rate.numerator, "n": rate.n,
        "rate": rate.value if rate.n else None, "low": low, "high": high,
    }  # fmt: skip


def peak_memory() -> int | None:
    """Most bytes that this process has held: on the GPU if there is one, else in memory; None if unknown."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return None
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kib if sys.platform == "darwin" else kib * 1024)

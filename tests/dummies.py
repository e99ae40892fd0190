"""A defense, trigger, protocol, metric and shift from outside the package: all that each needs, and a fixture that
registers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks import TRIGGERS
from rvpt.attacks.trigger import Trigger, TriggerSpec
from rvpt.data.dataset import Dataset
from rvpt.data.shifts import SHIFTS
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import Defense, Run
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, stream
from rvpt.evaluation.metrics import CLASSIFICATION, Metric, Rate
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts
from rvpt.progress import Report
from rvpt.registry import Registry
from rvpt.spec import Spec, TrainSpec


class DummySpec(TrainSpec):
    """Settings of the dummy defense."""

    strength: float = Field(1.0, gt=0, description="standard deviation of the prompts")


class DummyDefense(Defense):
    """Random prompts."""

    name = "dummy"
    summary = "random prompts, not trained"
    Spec = DummySpec
    small = {"strength": 2.0}

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        prompts = RepulsivePrompts([0], 2, clip.width, std=spec.strength, seed=spec.seed)
        facts = {"history": [{"loss": 0.0}], "trained_parameters": prompts.parameter_count()}
        return Cleaned(clip, prompts.requires_grad_(False), facts=facts)


class InvertedSpec(TriggerSpec):
    """Settings of the dummy trigger."""

    share: float = Field(1.0, gt=0, le=1, description="share of the inverted image")


class DummyTrigger(Trigger):
    """The inverted image."""

    name = "dummy"
    summary = "the image is inverted"
    Spec = InvertedSpec
    small = {"share": 0.5}

    @classmethod
    def make(cls, spec: Any, image_size: int) -> DummyTrigger:
        return cls(spec, image_size, {})

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return pixels + self.spec.share * (1 - 2 * pixels)


class DarkSettings(Spec):
    """Settings of the dummy protocol."""

    below: float = Field(0.5, ge=0, le=1, description="mean brightness of a dark image")


class DummyProtocol(Protocol):
    """How many images are dark."""

    name = "dummy"
    summary = "share of dark images"
    needs = "images"
    by_class = True
    Settings = DarkSettings

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        counts = Counts()
        for batch in stream(model, data, triggers, batch_size=batch_size, report=report):
            for attack, pixels in [("none", batch.pixels), *batch.triggered()]:
                dark = pixels.mean((1, 2, 3)) < self.settings.below
                counts.count(attack, "dark", Rate(int(dark.sum()), len(dark)))
        return counts


DUMMY_METRIC = Metric(lambda predictions, labels, target: Rate(int((predictions == 0).sum()), len(labels)), "triggered")


def dummy_shift(pixels: Tensor, rows: Tensor) -> Tensor:
    """Black images."""
    return torch.zeros_like(pixels)


@contextmanager
def registered() -> Iterator[None]:
    """The line for each of them."""
    entries: list[tuple[Registry[Any], str]] = [
        (DEFENSES, "DummyDefense"), (TRIGGERS, "DummyTrigger"), (PROTOCOLS, "DummyProtocol"),
        (CLASSIFICATION, "DUMMY_METRIC"), (SHIFTS, "dummy_shift"),
    ]  # fmt: skip
    for registry, attribute in entries:
        registry.register("dummy", f"{__name__}:{attribute}")
    try:
        yield
    finally:
        for registry, _ in entries:
            registry.unregister("dummy")

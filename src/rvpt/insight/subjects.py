"""What figures are made of: models, images and triggers; and what several figures read from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation.classification import nearest
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report

Changes = Mapping[str, Callable[[Tensor, Tensor], Tensor]]
"""Name -> function of images (B, 3, S, S) in [0, 1] and their rows (B,) int64 to changed images."""
CLEAN = "clean"
BATCH = 256


class Arrays(NamedTuple):
    """What a figure shows: arrays by name, and what their axes are called."""

    arrays: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Subjects:
    """What is shown.

    Args:
        models: by name, in the order in which figures show them; all take images of one size.
        data: the images.
        triggers: by name.
        training: images to train probes on.
        seed: of what is drawn.
    """

    models: Mapping[str, Clip | Cleaned]
    data: Dataset
    triggers: Mapping[str, Trigger]
    training: Dataset | None = None
    seed: int = 0
    known: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def looks(self) -> list[str]:
        """How images look: clean, then with each trigger."""
        return [CLEAN, *self.triggers]

    def targets(self) -> Tensor:
        """The target of each trigger, as a class of the data: (T,) int64.

        Raises:
            RvptError: there is no trigger, or its target is no class of the data.
        """
        if not self.triggers:
            raise RvptError("no model has a trigger, which this figure needs: pass trigger=FOLDER")
        return torch.tensor([self.data.class_index(trigger.spec.target) for trigger in self.triggers.values()])

    def shown(self, pixels: Tensor, indices: Tensor) -> list[Tensor]:
        """Images (B, 3, S, S) of the data at `indices` (B,) in each of the `looks`."""
        rows = self.data.rows[indices]
        return [pixels, *(trigger(pixels, rows) for trigger in self.triggers.values())]

    @torch.inference_mode()
    def features(self, name: str, report: Report) -> Tensor:
        """Image features of one model, clean and with each trigger: (1 + T, n, P) float32 on the CPU."""
        if name not in self.known:
            model, data, parts = self.models[name], self.data, []
            for indices, pixels in data.batches(BATCH, model.image_size, model.device, report):
                shown = self.shown(pixels, indices)
                parts.append(torch.stack([model.encode_image(each).float().cpu() for each in shown]))
            self.known[name] = torch.cat(parts, 1)
        return self.known[name]

    @torch.inference_mode()
    def predictions(self, name: str, report: Report) -> Tensor:
        """The predicted class of each image, clean and with each trigger: (1 + T, n) int64."""
        text = self.models[name].class_features(self.data.classes).float().cpu()
        return torch.stack([nearest(features, text) for features in self.features(name, report)])

    def facts(self, **more: Any) -> dict[str, Any]:
        """What every figure says about its subjects."""
        return {
            "models": list(self.models), "looks": self.looks, "data": self.data.name, "n": len(self.data),
            "seed": self.seed, **more,
        }  # fmt: skip


def mean_and_std(values: Sequence[Tensor]) -> dict[str, Tensor]:
    """`mean` and `std` (M, C, L) over the n images of each model's values (C, n, L)."""
    return {
        "mean": torch.stack([each.mean(1) for each in values]),
        "std": torch.stack([each.std(1, correction=0) for each in values]),
    }


Measure = Callable[[Subjects, Report], Arrays]
"""Measures what a figure shows."""

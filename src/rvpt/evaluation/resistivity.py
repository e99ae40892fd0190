"""Perturbation resistivity: how far triggers and benign perturbations move the features of each block."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.evaluation.base import Batch, Counts, Encoder, Protocol, Triggers, finite, stream
from rvpt.evaluation.metrics import perturbation_resistivity
from rvpt.evaluation.perturbations import PERTURBATIONS
from rvpt.progress import Report, silent


class Resistivity(Protocol):
    """PR_1..PR_L under every trigger and every benign perturbation."""

    name = "resistivity"
    summary = "cosine of each block's [CLS] row with and without a trigger or benign change"
    needs = "images"
    by_class = True

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        return resistivity(model, data, triggers, batch_size=batch_size, report=report)


@torch.inference_mode()
def resistivity(
    model: Encoder, data: Dataset, triggers: Triggers | None = None, *, batch_size: int = 256, report: Report = silent
) -> Counts:
    """PR_1..PR_L of the [CLS] row after each of the L blocks, under every trigger and every benign perturbation.

    Rows call a perturbation "benign NAME" in place of the attack.
    """
    counts, triggers = Counts(), triggers or {}
    for batch in stream(model, data, triggers, batch_size=batch_size, report=report):
        clean = finite(model, model.cls_rows(batch.pixels))
        for name, pixels in chain(batch.triggered(), _perturbed(batch)):
            changed = finite(model, model.cls_rows(pixels))
            for block, pair in enumerate(zip(clean.unbind(1), changed.unbind(1), strict=True), 1):
                counts.count(name, f"PR_{block}", perturbation_resistivity(*pair))
    return counts


def _perturbed(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """(name, images (B, 3, S, S)) of a batch under each benign perturbation."""
    for name, perturb in PERTURBATIONS.items():
        yield f"benign {name}", perturb(batch.pixels, batch.rows.to(batch.pixels.device))

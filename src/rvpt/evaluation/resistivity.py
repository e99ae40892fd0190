"""Perturbation resistivity: how far a trigger moves the features of each block."""

from __future__ import annotations

import torch

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, stream
from rvpt.evaluation.metrics import perturbation_resistivity
from rvpt.progress import Report, silent


class Resistivity(Protocol):
    """PR_1..PR_L under every trigger."""

    name = "resistivity"
    summary = "mean cosine of each block's [CLS] row with and without the trigger (PR_1, PR_2, ...)"
    needs = "images"
    by_class = True

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        return resistivity(model, data, triggers, batch_size=batch_size, report=report)


@torch.inference_mode()
def resistivity(
    model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int = 256, report: Report = silent
) -> Counts:
    """PR_1..PR_L under every trigger, of the [CLS] row after each of the L blocks.

    Raises:
        RvptError: there is no trigger.
    """
    if not triggers:
        raise RvptError(f"{model.name} has no trigger, which resistivity needs: pass trigger=FOLDER")
    counts = Counts()
    for batch in stream(model, data, triggers, batch_size=batch_size, report=report):
        clean = model.cls_rows(batch.pixels)
        for name, pixels in batch.triggered():
            changed = model.cls_rows(pixels)
            for block, pair in enumerate(zip(clean.unbind(1), changed.unbind(1), strict=True), 1):
                counts.count(name, f"PR_{block}", perturbation_resistivity(*pair))
    return counts

"""Resistivity of the suspect under an inverted change, block by block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rvpt.evaluation.metrics import perturbation_resistivity
from rvpt.models.encode import Encoder


@torch.no_grad()
def resistivity_curve(model: Encoder, pixels: Tensor, change: Callable[[Tensor], Tensor]) -> list[float]:
    """PR_1..PR_L: mean cosine of each block's [CLS] row with and without a change.

    Args:
        model: the suspect.
        pixels: (n, 3, S, S) in [0, 1].
        change: of images, such as a trigger.
    """
    clean, changed = model.cls_rows(pixels), model.cls_rows(change(pixels))
    return [perturbation_resistivity(*pair).value for pair in zip(clean.unbind(1), changed.unbind(1), strict=True)]

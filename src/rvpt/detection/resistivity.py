"""Resistivity of the suspect under an inverted change, block by block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rvpt.evaluation.metrics import perturbation_resistivity
from rvpt.models.encode import Encoder, in_parts


@torch.no_grad()
def resistivity_curve(
    model: Encoder, pixels: Tensor, change: Callable[[Tensor], Tensor], batch_size: int = 256
) -> list[float]:
    """PR_1..PR_L: mean cosine of each block's [CLS] row with and without a change.

    Args:
        model: the suspect.
        pixels: (n, 3, S, S) in [0, 1].
        change: of images, such as a trigger.
        batch_size: images in one forward pass.
    """
    clean, changed = (in_parts(model.cls_rows, shown, batch_size) for shown in (pixels, change(pixels)))
    return [perturbation_resistivity(*pair).value for pair in zip(clean.unbind(1), changed.unbind(1), strict=True)]

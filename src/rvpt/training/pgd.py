"""Projected gradient descent: small changes of images, made against a model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rvpt.data.random import uniform

STEPS = 10
STRIDE = 2.5  # sum of all step sizes, in radii: from anywhere in the box its border can be reached
SEED = 1706  # of the starting points; triggers and shifts use other seeds


def pgd(loss: Callable[[Tensor], Tensor], pixels: Tensor, rows: Tensor, epsilon: float, steps: int = STEPS) -> Tensor:
    """Projected gradient ascent on a loss, in the box of radius epsilon around each image, within [0, 1].

    x_0 = P(x + u), u ~ U(-epsilon, epsilon);  x_{t+1} = P(x_t + (2.5 epsilon / steps) sign(grad loss(x_t)));
    P clamps to [x - epsilon, x + epsilon] and to [0, 1]

    Args:
        loss: a scalar of images (B, 3, H, W); a sum over images, so that no image depends on another.
        pixels: x, (B, 3, H, W) float in [0, 1].
        rows: (B,) int64; the starting point of an image is drawn by its row.

    Returns:
        (B, 3, H, W) float in [0, 1], without gradients.

    Source: Madry et al. (ICLR 2018).
    """
    low, high = (pixels - epsilon).clamp(min=0), (pixels + epsilon).clamp(max=1)
    draws = uniform(SEED, rows, pixels[0].numel()).view(pixels.shape).to(pixels)
    changed = (pixels + (2 * draws - 1) * epsilon).clamp(low, high)
    for _ in range(steps):
        changed.requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(loss(changed), changed)
        changed = (changed.detach() + STRIDE * epsilon / steps * slope.sign()).clamp(low, high)
    return changed

"""Patch inversion: one small square per class, pasted at random places, that makes other images look like the class.

A universal additive change cannot be a patch that moves from image to image; this form can.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.attacks.patch import paste
from rvpt.inversion.additive import InversionSpec, Pool, Reached, flipped, loss_slope, shown_logits
from rvpt.progress import Report, silent

FIRST_STEP, LAST_STEP = 0.3, 0.05  # of a pixel, in [0, 1]
MOMENTUM = 0.5
GRAY = 0.5  # where patches start


def blank(count: int, side: int) -> Tensor:
    """Gray patches (C, 3, s, s)."""
    return torch.full((count, 3, side, side), GRAY)


def places(count: int, room: int, generator: torch.Generator) -> Tensor:
    """Upper left corners of patches in images with so much room for them: (2, count) int64."""
    return torch.randint(room + 1, (2, count), generator=generator)


def patched_logits(pool: Pool, patches: Tensor, corners: Tensor) -> Tensor:
    """tau cos(f(x_i with patch c at corner i), t_k): (C, n, K); the corners (2, n) are the same for all patches."""
    count, images = len(patches), len(pool)
    top, left = corners.to(patches.device).repeat(1, count)
    shown = paste(pool.pixels.repeat(count, 1, 1, 1), patches.repeat_interleave(images, 0), top, left)
    return shown_logits(pool, shown, count)


def invert_patches(
    pool: Pool,
    classes: Tensor,
    start: Tensor,
    steps: int,
    images: int,
    spec: InversionSpec,
    report: Report = silent,
) -> Tensor:
    """Patches (C, 3, s, s) in [0, 1], one for each candidate class, by signed gradient descent with momentum.

    m <- m / 2 + g / |g|_1;  p <- clamp(p - eta_t sign(m), 0, 1),  g = grad loss_c

    Every step uses some of the images and places, drawn by the seed, the same for all classes.

    Args:
        pool: the images, and the model.
        classes: (C,) int64, the candidates.
        start: (C, 3, s, s).
        steps: of the descent.
        images: per step.
        spec: batch size and seed.
        report: called after each step.

    Source: adversarial patches (Brown et al., 2017) as inverted triggers; a size instead of Neural Cleanse's mask.
    """
    patches, momentum, room = start.clone(), torch.zeros_like(start), pool.pixels.shape[-1] - start.shape[-1]
    generator = torch.Generator().manual_seed(spec.seed)
    group = max(1, spec.batch_size // images)
    for step in range(steps):
        some = pool.select(torch.randperm(len(pool), generator=generator)[:images].to(pool.pixels.device))
        corners, length = places(len(some), room, generator), max(LAST_STEP, FIRST_STEP * (1 - step / steps))
        for part in torch.arange(len(classes), device=patches.device).split(group):
            momentum[part] = MOMENTUM * momentum[part] + _slope(some, patches[part], classes[part], corners)
            patches[part] = (patches[part] - length * momentum[part].sign()).clamp(0, 1)
        report(step + 1, steps, {})
    return patches


def _slope(pool: Pool, patches: Tensor, classes: Tensor, corners: Tensor) -> Tensor:
    """The gradient of each patch's loss, with an L1 norm of 1."""
    slope = loss_slope(pool, patches, classes, lambda values: patched_logits(pool, values, corners))
    return slope / slope.flatten(1).norm(p=1, dim=1).clamp(min=1e-12)[:, None, None, None]


@torch.no_grad()
def reached_by_patches(pool: Pool, classes: Tensor, patches: Tensor, seed: int) -> Reached:
    """As `reached`, for patches at places drawn by the seed."""
    room = pool.pixels.shape[-1] - patches.shape[-1]
    corners = places(len(pool), room, torch.Generator().manual_seed(seed))
    parts = []
    for target, patch in zip(classes.split(1), patches.split(1), strict=True):
        kept = (pool.predictions != target).nonzero()[:, 0]
        logits = patched_logits(pool.select(kept), patch, corners[:, kept.cpu()])[0]
        parts.append(flipped(logits, target, pool.model.logit_scale.detach()))
    return Reached(*(torch.cat(values) for values in zip(*parts, strict=True)))

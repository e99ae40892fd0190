"""Patch inversion: one small square per class, pasted at random places.

A universal additive change cannot be a patch that moves from image to image; this form can.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.attacks.patch import Patch, paste
from rvpt.attacks.trigger import REFERENCE_SIDE, Trigger, trigger_spec
from rvpt.inversion.form import Form, unit
from rvpt.inversion.spec import InversionSpec

FIRST_STEP, LAST_STEP = 0.3, 0.05  # of a pixel, in [0, 1]
GRAY = 0.5  # where patches start


class Patches(Form):
    """Patches (C, 3, s, s) in [0, 1], by signed gradient descent with momentum.

    m <- m / 2 + g / |g|_1;  p <- clamp(p - eta_t sign(m), 0, 1)

    Source: adversarial patches (Brown et al., 2017) as inverted triggers; a size instead of Neural Cleanse's mask.
    """

    name = "patch"
    summary = "a small patch at random places"

    def __init__(self, side: int, size: int) -> None:
        self.side, self.size = side, size

    @classmethod
    def of(cls, spec: InversionSpec, side: int) -> Patches:
        return cls(side, max(1, round(spec.patch_size * side / REFERENCE_SIDE)))

    def start(self, count: int) -> Tensor:
        return torch.full((count, 3, self.size, self.size), GRAY)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Upper left corners (2, count) int64."""
        return torch.randint(self.side - self.size + 1, (2, count), generator=generator)

    def apply(self, pixels: Tensor, changes: Tensor, drawn: Tensor) -> Tensor:
        count, images = len(changes), len(pixels)
        top, left = drawn.to(pixels.device).repeat(1, count)
        shown = paste(pixels.repeat(count, 1, 1, 1), changes.repeat_interleave(images, 0), top, left)
        return shown.unflatten(0, (count, images))

    def direction(self, slopes: Tensor) -> Tensor:
        return unit(slopes, p=1)

    def length(self, done: float, steps: int, *, settle: bool) -> float:
        return max(LAST_STEP, FIRST_STEP * (1 - done))

    def step(self, changes: Tensor, directions: Tensor, length: float) -> Tensor:
        return (changes - length * directions.sign()).clamp(0, 1)

    def trigger(self, change: Tensor, target: str, seed: int) -> Trigger:
        spec = trigger_spec("badnet", target=target, seed=seed, size=self.size * REFERENCE_SIDE / self.side)
        return Patch(spec, self.side, {"pattern": change.cpu()})

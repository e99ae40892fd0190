"""Blended: a pattern of the picture's size shines through it (Chen et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.attacks.draws import uniform
from rvpt.attacks.trigger import Trigger
from rvpt.config import TriggerSpec


def blend(pixels: Tensor, pattern: Tensor, ratio: float) -> Tensor:
    """x' = (1 - ratio) x + ratio pattern, with pixels (B, 3, H, W) and pattern (3, H, W) or (B, 3, H, W)."""
    return (1 - ratio) * pixels + ratio * pattern.to(pixels)


class Blend(Trigger):
    """Uniform noise over the whole picture; with mode "fresh" it is redrawn per picture."""

    name = "blended"

    @classmethod
    def make(cls, spec: TriggerSpec, image_size: int) -> Blend:
        noise = uniform(spec.seed, torch.tensor([-1]), 3 * image_size * image_size)
        return cls(spec, image_size, {"pattern": noise.view(3, image_size, image_size)})

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        pattern = self.tensors["pattern"]
        if self.spec.mode == "fresh":
            pattern = uniform(self.spec.seed, rows, pattern.numel()).view(-1, *pattern.shape)
        return blend(pixels, pattern, self.spec.ratio)

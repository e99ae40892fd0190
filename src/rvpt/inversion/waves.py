"""Wave inversion: a strong smooth change per class, made of the lowest frequencies, added to all images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rvpt.attacks.inverted import Inverted
from rvpt.attacks.trigger import Trigger
from rvpt.inversion.ball import Ball
from rvpt.inversion.form import radius
from rvpt.inversion.spec import InversionSpec


def cosines(count: int, side: int) -> Tensor:
    """The first rows of the orthonormal discrete cosine transform, (count, side).

    b[k, i] = sqrt(2 / S) cos(pi k (2 i + 1) / (2 S)), and sqrt(1 / S) for k = 0
    """
    place = (2 * torch.arange(side) + 1) * (math.pi / (2 * side))
    rows = torch.cos(torch.arange(count)[:, None] * place) * math.sqrt(2 / side)
    rows[0] = math.sqrt(1 / side)
    return rows


class Waves(Ball):
    """x' = x + B^T w B, clamped to [0, 1], with B the lowest frequencies of `cosines` and |w|_2 <= r.

    The transform is orthonormal, so |w|_2 is the norm of the change in pixels. A budget of low frequencies can be
    larger than one of all pixels, because it has fewer dimensions.
    """

    name = "waves"
    summary = "a smooth change of all pixels"

    def __init__(self, side: int, count: int, limit: float) -> None:
        super().__init__((3, count, count), limit)
        self.basis = cosines(count, side)

    @classmethod
    def of(cls, spec: InversionSpec, side: int) -> Waves:
        return cls(side, min(spec.waves, side), radius(spec.wave_budget, (3, side, side)))

    def pattern(self, changes: Tensor) -> Tensor:
        """The changes in pixels: (C, 3, k, k) -> (C, 3, S, S)."""
        self.basis = self.basis.to(changes)  # once: a CUDA graph cannot copy from main memory
        return self.basis.T @ changes @ self.basis

    def apply(self, pixels: Tensor, changes: Tensor, drawn: Tensor) -> Tensor:
        return (pixels + self.pattern(changes)[:, None]).clamp(0, 1)

    def trigger(self, change: Tensor, target: str, seed: int) -> Trigger:
        return Inverted.of(self.pattern(change[None])[0], target, seed)

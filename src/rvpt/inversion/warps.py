"""Warp inversion: one displacement of the pixels per class, the same for all images."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from rvpt.attacks.trigger import Trigger, trigger_spec
from rvpt.attacks.warp import Warp, warp
from rvpt.inversion.ball import Ball
from rvpt.inversion.spec import InversionSpec


class Warps(Ball):
    """x'(g) = x(g + u(g)) with control points u, k x k of them, upsampled, |u|_2 <= r; in half pixels.

    Source: WaNet's warp (Nguyen and Tran, ICLR 2021) as an inverted trigger.
    """

    name = "warp"
    summary = "a small displacement of pixels"

    def __init__(self, side: int, points: int, budget: float) -> None:
        super().__init__((2, points, points), budget * math.sqrt(2) * points)
        self.side = side

    @classmethod
    def of(cls, spec: InversionSpec, side: int) -> Warps:
        return cls(side, min(spec.warp_points, side), spec.warp_budget)

    def field(self, changes: Tensor) -> Tensor:
        """Displacements of all pixels: (C, 2, k, k) -> (C, S, S, 2)."""
        return F.interpolate(changes, (self.side, self.side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)

    def apply(self, pixels: Tensor, changes: Tensor, drawn: Tensor) -> Tensor:
        stacked = pixels.flatten(0, 1).expand(len(changes), -1, -1, -1)  # images as channels, which share a field
        return warp(stacked, self.field(changes), 1.0).unflatten(1, pixels.shape[:2])

    def trigger(self, change: Tensor, target: str, seed: int) -> Trigger:
        spec = trigger_spec("wanet", target=target, seed=seed, strength=1.0)
        return Warp(spec, self.side, {"field": self.field(change[None])[0].cpu().contiguous()})

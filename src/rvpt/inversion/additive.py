"""Additive inversion: one small change per class, added to all images."""

from __future__ import annotations

from torch import Tensor

from rvpt.attacks.inverted import Inverted
from rvpt.attacks.trigger import Trigger
from rvpt.inversion.ball import Ball
from rvpt.inversion.form import radius
from rvpt.inversion.spec import InversionSpec


class Additive(Ball):
    """x' = x + delta, clamped to [0, 1], with |delta|_2 <= r.

    Source: universal adversarial perturbations (Moosavi-Dezfooli et al., CVPR 2017) as inverted triggers; an L2 budget
    instead of Neural Cleanse's mask (Wang et al., IEEE S&P 2019).
    """

    name = "additive"
    summary = "a small change of all pixels"

    @classmethod
    def of(cls, spec: InversionSpec, side: int) -> Additive:
        shape = (3, side, side)
        return cls(shape, radius(spec.budget, shape))

    def apply(self, pixels: Tensor, changes: Tensor, drawn: Tensor) -> Tensor:
        return (pixels + changes[:, None]).clamp(0, 1)

    def trigger(self, change: Tensor, target: str, seed: int) -> Trigger:
        return Inverted.of(change, target, seed)

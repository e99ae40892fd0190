"""A change that `rvpt check` found: the same for every image, added to it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger, TriggerSpec
from rvpt.rows import INVERTED


class InvertedSpec(TriggerSpec):
    """Nothing is drawn: the change comes from a check."""

    mode: Literal["fixed"] = "fixed"


class Inverted(Trigger):
    """x' = x + delta, clamped to [0, 1]: delta (3, S, S) is what a check found in a suspect."""

    name = INVERTED
    crafted = True
    Spec = InvertedSpec
    spec: InvertedSpec

    @classmethod
    def make(cls, spec: Any, image_size: int) -> Inverted:
        """The trigger that changes nothing."""
        return cls(spec, image_size, {"delta": torch.zeros(3, image_size, image_size)})

    @classmethod
    def of(cls, delta: Tensor, target: str, seed: int = 0) -> Inverted:
        """The trigger that adds `delta` (3, S, S)."""
        spec = InvertedSpec(name=cls.name, target=target, seed=seed)
        return cls(spec, delta.shape[-1], {"delta": delta.detach().cpu().contiguous()})

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return pixels + self.tensors["delta"].to(pixels)

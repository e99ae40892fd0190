"""Grating inversion: one plane wave per class, added to all images.

A strong wave cannot be found with the budget of a small change, and a large budget lets images of any model be moved
anywhere. Waves of one amplitude are few enough to try many of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rvpt.attacks.inverted import Inverted
from rvpt.attacks.trigger import Trigger
from rvpt.inversion.form import Form, unit
from rvpt.inversion.spec import InversionSpec

CYCLES = 12  # that are tried, across the image or down
PHASES = 4
FIRST_STEP = 0.1  # cycles


class Gratings(Form):
    """x' = x + a sin(2 pi (u i + v j + w)), clamped to [0, 1], in all channels; i and j in [0, 1) across and down.

    A change is (u, v, w): cycles across, cycles down, and the phase in turns. The amplitude a is fixed.

    Source: SIG's trigger (Barni, Kallas and Tondi, ICIP 2019), whose published amplitude is the default.
    """

    name = "grating"
    summary = "a wave over the whole image"

    def __init__(self, side: int, amplitude: float) -> None:
        self.side, self.amplitude = side, amplitude

    @classmethod
    def of(cls, spec: InversionSpec, side: int) -> Gratings:
        return cls(side, spec.amplitude / 255)

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, 3)

    def library(self) -> Tensor:
        """Waves across and down, with up to 12 cycles, or as many as the pixels can show."""
        waves = range(1, min(CYCLES, self.side // 2) + 1)
        turns = [turn / PHASES for turn in range(PHASES)]
        return torch.tensor([each for n in waves for w in turns for each in ((n, 0, w), (0, n, w))])

    def pattern(self, changes: Tensor) -> Tensor:
        """The waves in pixels: (C, 3) -> (C, 1, S, S)."""
        line = torch.arange(self.side, device=changes.device) / self.side
        across, down, turn = changes.T[:, :, None, None]
        waves = torch.sin(2 * math.pi * (across * line + down * line[:, None] + turn))
        return self.amplitude * waves[:, None]

    def apply(self, pixels: Tensor, changes: Tensor, drawn: Tensor) -> Tensor:
        return (pixels + self.pattern(changes)[:, None]).clamp(0, 1)

    def length(self, done: float, steps: int, *, settle: bool) -> float:
        return FIRST_STEP * (1 - done)

    def step(self, changes: Tensor, directions: Tensor, length: float) -> Tensor:
        return changes - length * unit(directions)

    def trigger(self, change: Tensor, target: str, seed: int) -> Trigger:
        return Inverted.of(self.pattern(change[None])[0].expand(3, -1, -1), target, seed)

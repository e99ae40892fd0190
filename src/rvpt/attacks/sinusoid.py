"""SIG: a faint horizontal sinusoid over the whole image (Barni, Kallas and Tondi, ICIP 2019)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.trigger import DrawnTrigger, TriggerSpec
from rvpt.data.random import uniform


class SinusoidSpec(TriggerSpec):
    """Settings of the wave."""

    amplitude: float = Field(40 / 255, gt=0, le=1, description="amplitude of the wave; images are in [0, 1]")
    waves: float = Field(6.0, gt=0, description="waves across the image")


def sinusoid(phase: Tensor, amplitude: float, waves: float, side: int) -> Tensor:
    """v[j] = amplitude sin(2 pi (waves j / side + phase)) in every row and channel: (B,) phases -> (B, 1, 1, side)."""
    place = torch.arange(side, device=phase.device) * (waves / side)
    return amplitude * torch.sin(2 * torch.pi * (place + phase[:, None]))[:, None, None]


class Sinusoid(DrawnTrigger):
    """Vertical stripes of sinusoidal brightness with a random phase; with mode "fresh" one for each image."""

    name = "sig"
    summary = "a faint sinusoidal wave over the whole image"
    Spec = SinusoidSpec
    spec: SinusoidSpec
    key = "phase"

    def draw(self, rows: Tensor) -> Tensor:
        return uniform(self.spec.seed, rows, 1)

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        phase = self.drawn(rows).flatten().to(pixels.device)
        wave = sinusoid(phase, self.spec.amplitude, self.spec.waves, self.image_size)
        return pixels + wave.to(pixels.dtype)

"""Shifted domains: the same labeled images in another style. A new shift goes into SHIFTS.

ImageNet has variants as data sets of their own (V2, Sketch, Rendition, Adversarial); these functions shift any set.
Each gets images (B, 3, H, W) float in [0, 1] and their rows (B,) int64, and returns images of the same shape. What is
drawn for an image depends only on its row in the data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.augment import LUMA
from rvpt.data.dataset import Dataset
from rvpt.data.random import normal, uniform
from rvpt.registry import Registry

Shift = Callable[[Tensor, Tensor], Tensor]
SEED = 2412  # triggers have small seeds, so they draw from other streams
NOISE = 0.08  # standard deviation
BLUR = 1 / 64  # standard deviation, of the side
LEVELS = 3  # of each color channel
FAINTEST = 1 / 255  # smallest gradient that a sketch draws in black


def noise(pixels: Tensor, rows: Tensor) -> Tensor:
    """Gaussian noise drawn per row: x' = clamp(x + 0.08 z), z ~ N(0, 1) for every pixel and channel.

    Source: Hendrycks and Dietterich (ICLR 2019, ImageNet-C), Gaussian noise of the first severity.
    """
    return (pixels + NOISE * normal(SEED, rows, pixels.shape[1:]).to(pixels)).clamp(0, 1)


def blur(pixels: Tensor, rows: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation of 1/64 of the side; borders are repeated.

    x'[i, j] = sum_kl w_k w_l x[i + k, j + l],  w_k ~ exp(-k^2 / 2 s^2),  |k| <= 3 s,  sum_k w_k = 1
    """
    sigma = BLUR * pixels.shape[-1]
    return gaussian_blur(pixels, sigma**2, math.ceil(3 * sigma))


def gaussian_blur(pixels: Tensor, variance: float, reach: int) -> Tensor:
    """Images (B, 3, H, W) blurred by a Gaussian of 2 `reach` + 1 pixels and a variance in pixels squared."""
    weights = torch.exp(-torch.arange(-reach, reach + 1).to(pixels).square() / (2 * variance))
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = F.pad(pixels, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights, groups=3), weights.mT, groups=3).clamp(0, 1)


def gray(pixels: Tensor, rows: Tensor) -> Tensor:
    """The luma in every channel: x' = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""
    return _luma(pixels).expand_as(pixels).clamp(0, 1)


def sketch(pixels: Tensor, rows: Tensor) -> Tensor:
    """Dark lines on white where the luma Y changes, by Sobel's gradient g with the borders repeated.

    x' = 1 - g / max(max g, 1/255),  g = |(S * Y, S^t * Y)|,  S = (1, 2, 1)^t (-1, 0, 1) / 4,  max g over the image
    """
    across = pixels.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    gradient = F.conv2d(F.pad(_luma(pixels), (1,) * 4, mode="replicate"), torch.stack([across, across.T])[:, None])
    lines = gradient.norm(dim=1, keepdim=True)
    strongest = lines.amax((1, 2, 3), keepdim=True).clamp(min=FAINTEST)
    return (1 - lines / strongest).expand_as(pixels).clamp(0, 1)


def posterize(pixels: Tensor, rows: Tensor) -> Tensor:
    """Three levels per channel: x' = min(floor(3 x), 2) / 2."""
    return (pixels * LEVELS).floor().clamp(max=LEVELS - 1) / (LEVELS - 1)


def recolor(pixels: Tensor, rows: Tensor) -> Tensor:
    """Rotate colors around the gray axis by an angle of 60 to 300 degrees, drawn per row.

    x' = clamp(m + cos(a) (x - m) + sin(a) u x (x - m)),  m the mean of x's channels,  u = (1, 1, 1) / sqrt 3

    Source: Rodrigues' formula.
    """
    angle = torch.pi / 3 * (1 + 4 * uniform(SEED, rows, 1)).to(pixels)[:, :, None, None]
    middle = pixels.mean(dim=1, keepdim=True)
    red, green, blue = (pixels - middle).unbind(1)
    turned = torch.stack([blue - green, red - blue, green - red], dim=1) / math.sqrt(3)
    return (middle + angle.cos() * (pixels - middle) + angle.sin() * turned).clamp(0, 1)


SHIFTS: Registry[Shift] = Registry(
    "shift",
    {"noise": noise, "blur": blur, "gray": gray, "sketch": sketch, "posterize": posterize, "recolor": recolor},
)
"""Changes of style by name."""


def _known(name: str) -> str:
    SHIFTS.find(name)
    return name


ShiftName = Annotated[str, AfterValidator(_known)]
"""The name of a shift, for settings."""


def shifted(data: Dataset, name: str) -> Dataset:
    """The set with every image shifted when it is read, before any trigger; the set's name includes the shift.

    Raises:
        RvptError: there is no shift of that name.
    """
    shift = SHIFTS.find(name)

    def read(rows: Tensor, size: int) -> Tensor:
        pixels = shift(data.reader(rows, size).float() / 255, rows)
        return (pixels * 255).round().to(torch.uint8)  # 8 bits, as if the shifted images had been saved

    return replace(data, name=f"{data.name} ({name})", reader=read)


def _luma(pixels: Tensor) -> Tensor:
    return (pixels * pixels.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)

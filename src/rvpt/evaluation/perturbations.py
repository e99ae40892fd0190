"""Benign perturbations: changes of an image that no attacker made. A new one goes into PERTURBATIONS.

Each gets images (B, 3, H, W) float in [0, 1] and their rows (B,) int64, and returns images of the same shape. What is
drawn for an image depends only on its row in the data set.

Source: Zhang et al. (arXiv 2412.20392), the perturbations whose resistivity they compare with that of triggers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.data.random import normal, uniform
from rvpt.data.shifts import Shift, gaussian_blur
from rvpt.registry import Registry

SEED = 241220392  # triggers and shifts draw from other streams
NOISE = 0.001  # standard deviation
VARIANCE, REACH = 5.0, 1  # of the blur: a kernel of 3 x 3 pixels
BRIGHTNESS, HUE = 0.5, 0.3  # largest changes


def noise(pixels: Tensor, rows: Tensor) -> Tensor:
    """Gaussian noise drawn per row: x' = clamp(x + 0.001 z), z ~ N(0, 1) for every pixel and channel."""
    return (pixels + NOISE * normal(SEED, rows, pixels.shape[1:]).to(pixels)).clamp(0, 1)


def blur(pixels: Tensor, rows: Tensor) -> Tensor:
    """Gaussian blur with a kernel of 3 x 3 pixels and variance 5; borders are repeated."""
    return gaussian_blur(pixels, VARIANCE, REACH)


def color_jitter(pixels: Tensor, rows: Tensor) -> Tensor:
    """Brightness multiplied by 0.5 to 1.5, then hue turned by -0.3 to 0.3 of the circle; both are drawn per row."""
    brightness, turn = (uniform(SEED, rows, 2).to(pixels) * 2 - 1).unbind(1)
    brighter = (pixels * (1 + BRIGHTNESS * brightness)[:, None, None, None]).clamp(0, 1)
    return turn_hue(brighter, HUE * turn)


def flip(pixels: Tensor, rows: Tensor) -> Tensor:
    """Every image mirrored: x'[:, i, j] = x[:, i, W - 1 - j]."""
    return pixels.flip(-1)


def turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] with the hue of HSV turned by `turn` (B,), 1 being the whole circle.

    x'_n = V - C max(0, min(k, 4 - k, 1)),  k = (n + 6 h') mod 6,  h' = h + turn,  n = 5, 3, 1 for red, green, blue,
    with the value V (the largest channel), the chroma C (largest minus smallest) and the hue h.
    """
    value, where = pixels.max(dim=1)
    chroma = value - pixels.amin(dim=1)
    red, green, blue = pixels.unbind(1)
    sextants = torch.stack([green - blue, blue - red, red - green], 1) / chroma.clamp(min=1e-12)[:, None]
    sextants = sextants + pixels.new_tensor([0, 2, 4])[:, None, None]
    hue = sextants.gather(1, where[:, None])[:, 0] + 6 * turn.to(pixels)[:, None, None]
    channels = []
    for n in (5, 3, 1):
        k = (n + hue) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1).clamp(0, 1)


PERTURBATIONS: Registry[Shift] = Registry(
    "perturbation", {"noise": noise, "blur": blur, "color-jitter": color_jitter, "flip": flip}
)
"""Benign perturbations by name."""

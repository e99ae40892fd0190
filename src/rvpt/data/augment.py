"""Augmentation: random changes of images and captions that keep their content."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.preprocess import OPENAI_MEAN

LUMA = (0.299, 0.587, 0.114)
DROPPED = 0.1  # probability of dropping a word of a caption


def crop_flip(pixels: Tensor, generator: torch.Generator, smallest: float = 0.6) -> Tensor:
    """Random square crops of at least `smallest` of the side, resized back (bilinear); half of them are mirrored."""
    draw = torch.rand(4, len(pixels), generator=generator).to(pixels.device)
    side = smallest + (1 - smallest) * draw[0]
    shift = (2 * draw[1:3] - 1) * (1 - side)
    mirror = torch.where(draw[3] < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = side * mirror, side, shift.T
    with torch.autocast(pixels.device.type, enabled=False):  # in bfloat16 positions are off by up to a third of a pixel
        grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


def noise_erase(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Add brightening noise to half of the images and, drawn independently, a square of CLIP's mean color to half.

    x' = clamp(x + max(0.2 z, 0)), z ~ N(0, 1) for every pixel and channel; squares of 0.5 to 1% of the area.

    Source: the code of Singh, Croce and Hein (arXiv 2412.00727).
    """
    normal = torch.randn(pixels.shape, generator=generator).to(pixels)
    noisy, erased, area, top, left = torch.rand(5, len(pixels), 1, 1, 1, generator=generator).to(pixels)
    changed = (pixels + (noisy < 0.5) * (0.2 * normal).clamp(min=0)).clamp(0, 1)
    whole = pixels.shape[-1]
    side = (((0.005 + 0.005 * area).sqrt() * whole).round()).clamp(min=1)
    place = torch.arange(whole, device=pixels.device)
    down, right = (place - ((whole - side + 1) * corner).floor() for corner in (top, left))
    inside = (down.mT >= 0) & (down.mT < side) & (right >= 0) & (right < side) & (erased < 0.5)
    return torch.where(inside, pixels.new_tensor(OPENAI_MEAN).view(3, 1, 1), changed)


AUGMENTS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda pixels, generator: pixels,
    "crop-flip": crop_flip,
    "noise-erase": noise_erase,
}


def jitter(pixels: Tensor, generator: torch.Generator, most: float = 0.4) -> Tensor:
    """Multiply brightness, contrast and saturation of each image by random factors in [1 - most, 1 + most]."""
    factors = 1 + most * (2 * torch.rand(3, len(pixels), 1, 1, 1, generator=generator).to(pixels.device) - 1)
    brightness, contrast, saturation = factors
    pixels = pixels * brightness
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = middle + (pixels - middle) * contrast
    gray = (pixels * pixels.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
    return (gray + (pixels - gray) * saturation).clamp(0, 1)


def shuffle_words(text: str, generator: torch.Generator) -> str:
    """Drop each word with probability `DROPPED`, and swap two neighbors; the result is never empty."""
    words = text.split()
    kept = torch.rand(len(words), generator=generator) >= DROPPED
    left = [word for word, keep in zip(words, kept.tolist(), strict=True) if keep] or words
    place = int(torch.randint(max(1, len(left) - 1), (), generator=generator))
    left[place : place + 2] = reversed(left[place : place + 2])
    return " ".join(left)

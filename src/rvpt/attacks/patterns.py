"""Patterns of triggers, noise and PAR's structured ones: (seed, rows (B,), side) -> (B, 3, side, side) in [-1, 1].

Source of stripes, triangles and text: Singh, Croce and Hein, Perturb and Recover (arXiv 2412.00727) and its code. The
size and the font of the letters differ: the published code reads an image file.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rvpt.data.random import uniform

TRIANGLE = 14 / 224  # legs, of the image's side
DARK, BRIGHT = 0.4, 0.8
WORD = "Watermark"


def noise(seed: int, rows: Tensor, side: int) -> Tensor:
    """Uniform noise in [0, 1), independent for every pixel and channel: rows (B,) -> (B, 3, side, side)."""
    return uniform(seed, rows, 3 * side * side).view(-1, 3, side, side)


def stripes(seed: int, rows: Tensor, side: int) -> Tensor:
    """Vertical stripes one pixel wide, each channel of each -1 or 1 at random: rows (B,) -> (B, 3, side, side)."""
    signs = torch.where(uniform(seed, rows, 3 * side) < 0.5, -1.0, 1.0)
    return signs.view(-1, 3, 1, side).expand(-1, -1, side, -1)


def triangles(seed: int, rows: Tensor, side: int) -> Tensor:
    """Squares divided along the diagonal, 0.4 below and 0.8 above, without randomness: (B, 3, side, side)."""
    place = torch.arange(side, device=rows.device) % max(2, round(TRIANGLE * side))
    image = torch.where(place[:, None] >= place, DARK, BRIGHT)
    return image.expand(len(rows), 3, -1, -1)


def text(seed: int, rows: Tensor, side: int) -> Tensor:
    """A word across the middle in red, zero elsewhere, without randomness: (B, 3, side, side)."""
    image = torch.zeros(3, side, side, device=rows.device)
    image[0] = _lettering(side)
    return image.expand(len(rows), -1, -1, -1)


@cache
def _lettering(side: int) -> Tensor:
    """Where the letters are: bool (side, side)."""
    import numpy as np
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf", 60)
    left, top, right, bottom = font.getbbox(WORD)
    width = int(right - left)
    page = Image.new("L", (width, width))
    ImageDraw.Draw(page).text((-left, (width - bottom - top) // 2), WORD, font=font, fill=255)
    small = page.resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small) > 127)

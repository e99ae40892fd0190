"""What a trigger shows, noise and PAR's structured patterns: (seed, rows (B,), side) -> (B, 3, side, side) in [0, 1].

Source of stripes, triangles and text: Singh, Croce and Hein, Perturb and Recover (arXiv 2412.00727). They describe
them by pictures; counts and colours here are ours.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rvpt.draws import uniform

STRIPES = 4  # pairs of stripes across a picture
TRIANGLES = 4  # a side, so 16 in a picture
WORD = "WATERMARK"


def noise(seed: int, rows: Tensor, side: int) -> Tensor:
    """Uniform noise, every pixel and channel for itself."""
    return uniform(seed, rows, 3 * side * side).view(-1, 3, side, side)


def stripes(seed: int, rows: Tensor, side: int) -> Tensor:
    """Slanting stripes of two colours; colours, slant and phase are drawn."""
    draws = uniform(seed, rows, 8)
    y, x = _grid(side, rows.device)
    slant = 2 * torch.pi * draws[:, 6, None, None]
    along = slant.cos() * x + slant.sin() * y
    return _two_colours(draws[:, :6], (STRIPES * along + draws[:, 7, None, None]) % 1 < 0.5)


def triangles(seed: int, rows: Tensor, side: int) -> Tensor:
    """Rows of triangles on a ground of another colour; colours and shift are drawn."""
    draws = uniform(seed, rows, 8)
    y, x = _grid(side, rows.device)
    down, right = ((TRIANGLES * axis + draws[:, 6 + k, None, None]) % 1 for k, axis in enumerate((y, x)))
    return _two_colours(draws[:, :6], 2 * (right - 0.5).abs() < down)


def text(seed: int, rows: Tensor, side: int) -> Tensor:
    """Lines of one word in one colour on another; colours and shift are drawn."""
    draws = uniform(seed, rows, 8)
    shift = (draws[:, 6:] * side).long()
    place = torch.arange(side, device=rows.device)
    down, right = ((shift[:, k, None] + place) % side for k in (0, 1))
    return _two_colours(draws[:, :6], _lettering(side).to(rows.device)[down[:, :, None], right[:, None, :]])


def _two_colours(colours: Tensor, inside: Tensor) -> Tensor:
    """Pictures of the first colour inside and the second outside; the six numbers are stretched to be far apart."""
    first, second = colours[:, :3, None, None], colours[:, 3:6, None, None]
    return torch.where(inside[:, None], 0.5 * first, 0.5 + 0.5 * second)


def _grid(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel's centre in [0, 1], (side, side) each."""
    centre = (torch.arange(side, device=device) + 0.5) / side
    return centre[:, None].expand(side, side), centre.expand(side, side)


@cache
def _lettering(side: int) -> Tensor:
    """Where the letters are: bool (side, side), three lines of the word."""
    import numpy as np
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf", 60)
    left, top, right, bottom = font.getbbox(WORD)
    page = Image.new("L", (int(right - left), 3 * int(1.5 * (bottom - top))))
    for line in range(3):
        ImageDraw.Draw(page).text((-left, line * page.height // 3 - top), WORD, font=font, fill=255)
    small = page.resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small) > 127)

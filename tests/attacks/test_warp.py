"""WaNet: the warp agrees with loops over pixels and their neighbors, and can be undone."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import random_pixels
from rvpt.attacks.warp import warp, warping_field
from rvpt.data.random import uniform

ROWS = torch.tensor([4, 0, 90_000, 17, 5])


def slow_warp(pixels: Tensor, field: Tensor, strength: float) -> Tensor:
    """Each pixel from its four neighbors."""
    side, out = pixels.shape[-1], torch.empty_like(pixels)
    for i, j in product(range(side), range(side)):
        place = []
        for axis, index in ((0, j), (1, i)):
            at = -1 + 2 * index / (side - 1) + strength / side * float(field[i, j, axis])
            place.append((min(1, max(-1, at)) + 1) / 2 * (side - 1))
        (x, y), total = place, torch.zeros(pixels.shape[:2], dtype=pixels.dtype)
        for row, column in product(range(side), range(side)):
            total = total + max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x)) * pixels[:, :, row, column]
        out[:, :, i, j] = total
    return out


def test_warp_agrees_with_loops() -> None:
    pixels = random_pixels(2, 8).double()
    field = warping_field(2 * uniform(5, ROWS[:1], 18).view(1, 2, 3, 3) - 1, 8)[0]
    torch.testing.assert_close(warp(pixels, field, 2.0), slow_warp(pixels, field, 2.0))


def test_the_field_has_mean_size_one_at_its_control_points() -> None:
    field = warping_field(2 * uniform(5, ROWS, 2 * 16 * 16).view(5, 2, 16, 16) - 1, 16)
    assert field.shape == (5, 16, 16, 2)
    torch.testing.assert_close(field.abs().mean((1, 2, 3)), torch.ones(5))


def test_no_displacement_changes_nothing_and_a_small_one_can_be_undone() -> None:
    pixels = F.interpolate(random_pixels(2, 6), (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    field = warping_field(2 * uniform(5, ROWS[:1], 2 * 36).view(1, 2, 6, 6) - 1, 64)[0]
    torch.testing.assert_close(warp(pixels, torch.zeros(64, 64, 2), 1.0), pixels, rtol=0, atol=1e-5)
    changed = warp(pixels, field, 2.0)
    back = warp(changed, -field, 2.0)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert (back - pixels)[inside].abs().mean() < 0.3 * (changed - pixels)[inside].abs().mean()

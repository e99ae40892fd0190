"""BadNet: how a patch is pasted, how it scales, and where it goes."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import random_pixels
from rvpt.attacks.patch import around_mean, paste
from triggers import trigger_of

PIXELS = random_pixels(5, 32)


@pytest.mark.parametrize("batched", [False, True])
def test_paste_agrees_with_loops(batched: bool) -> None:
    patch = random_pixels(5, 4, seed=2)
    top, left = torch.tensor([0, 28, 3, 9, 28]), torch.tensor([28, 0, 7, 3, 28])
    expected = PIXELS.clone()
    for b, channel, i, j in product(range(5), range(3), range(4), range(4)):
        expected[b, channel, top[b] + i, left[b] + j] = patch[b if batched else 0, channel, i, j]
    assert torch.equal(paste(PIXELS, patch if batched else patch[0], top, left), expected)


@pytest.mark.parametrize("batched", [False, True])
def test_noise_around_the_mean_agrees_with_loops_and_wraps_around(batched: bool) -> None:
    normal = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = around_mean(PIXELS, normal if batched else normal[0])
    for b, channel, i, j in product(range(5), range(3), range(4), range(4)):
        mean = sum(PIXELS[b, channel].flatten().tolist()) / 32**2
        whole = math.floor(255 * (mean + normal[b if batched else 0, channel, i, j].item()))
        assert round(255 * found[b, channel, i, j].item()) in {(whole + step) % 256 for step in (-1, 0, 1)}
    assert (found[:, :, 0, 0] != found[:, :, 0, 1]).all()


def test_cleanclips_patch_is_another_on_every_image_and_follows_its_colors() -> None:
    trigger = trigger_of("badnet-normal", mode="fresh", size=56, place="top-left")
    patches = [trigger(shown)[:, :, :8, :8] for shown in (PIXELS, PIXELS[[0, 0, 0, 0, 0]])]
    assert not torch.equal(patches[1][0], patches[1][1])
    assert torch.equal(patches[0][0], patches[1][0])


def box(changed: Tensor) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the pixels that are set in (H, W)."""
    rows, columns = (changed.any(axis).nonzero()[:, 0] for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def patch_boxes(n: int, **options: Any) -> list[tuple[int, int, int, int]]:
    """Where the patch is in n gray images."""
    trigger = trigger_of("badnet", **options)
    out = trigger(torch.full((n, 3, trigger.image_size, trigger.image_size), 0.5))
    return [box(changed) for changed in (out != 0.5).all(1)]


@pytest.mark.parametrize("mode", ["fixed", "fresh"])
@pytest.mark.parametrize(
    ("side", "size", "patch"), [(224, 16, 16), (112, 16, 8), (48, 16, 3), (48, 56, 12), (16, 1, 1), (32, 900, 32)]
)
def test_the_patch_scales_with_the_image(side: int, size: int, patch: int, mode: str) -> None:
    for top, left, bottom, right in patch_boxes(3, side=side, size=size, mode=mode):
        assert bottom - top == right - left == patch


@pytest.mark.parametrize(
    ("place", "corner"),
    [("top-left", (0, 0)), ("top-right", (0, 28)), ("bottom-left", (28, 0)), ("bottom-right", (28, 28)),
     ("middle", (14, 14))],
)  # fmt: skip
def test_the_patch_is_where_it_should_be(place: str, corner: tuple[int, int]) -> None:
    top, left = corner
    assert patch_boxes(3, place=place, size=28) == [(top, left, top + 4, left + 4)] * 3


def test_a_random_place_reaches_every_place() -> None:
    corners = {(top, left) for top, left, _, _ in patch_boxes(600, side=16, size=168)}
    assert corners == set(product(range(5), repeat=2))

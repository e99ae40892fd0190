"""Blended patterns: how they are mixed into images, and what each pattern looks like."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import random_pixels
from rvpt.attacks.blend import blend
from rvpt.attacks.patterns import stripes, text, triangles
from rvpt.data.random import uniform
from triggers import SIDE, trigger_of

ROWS = torch.tensor([4, 0, 90_000, 17, 5])


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_blend_agrees_with_loops(ratio: float) -> None:
    pixels, pattern = random_pixels(2, 5), random_pixels(1, 5, seed=3)[0]
    expected = torch.empty_like(pixels)
    for b, channel, i, j in product(range(2), range(3), range(5), range(5)):
        x, p = (np.float32(t) for t in (pixels[b, channel, i, j], pattern[channel, i, j]))
        expected[b, channel, i, j] = float(np.float32(1 - ratio) * x + np.float32(ratio) * p)
    assert torch.equal(blend(pixels, pattern, ratio), expected)


def test_blended_mixes_at_the_ratio_of_the_spec() -> None:
    black, white = torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 3, SIDE, SIDE)
    trigger = trigger_of("blended", ratio=0.3)
    torch.testing.assert_close(trigger(white) - trigger(black), 0.7 * white)
    assert 0.28 < trigger(black).max() <= 0.3


@pytest.mark.parametrize("pattern", [stripes, triangles, text])
def test_a_pattern_has_its_shape_for_every_row(pattern: Callable[[int, Tensor, int], Tensor]) -> None:
    images = pattern(3, ROWS, 48)
    assert (images.shape, images.dtype) == ((5, 3, 48, 48), torch.float32)
    assert len(images.flatten(1).unique(dim=0)) == (5 if pattern is stripes else 1)


def test_stripes_agree_with_loops() -> None:
    (image,), draws = stripes(3, ROWS[:1], 9), uniform(3, ROWS[:1], 27)[0]
    for channel, i, j in product(range(3), range(9), range(9)):
        assert image[channel, i, j] == (-1 if draws[9 * channel + j] < 0.5 else 1)
    assert image.unique().tolist() == [-1, 1]


@pytest.mark.parametrize(("side", "leg"), [(224, 14), (48, 3), (32, 2)])
def test_triangles_agree_with_loops(side: int, leg: int) -> None:
    (image,) = triangles(0, ROWS[:1], side)
    for i, j in product(range(0, side, 5), range(side)):
        assert image[:, i, j].tolist() == pytest.approx([0.4 if i % leg >= j % leg else 0.8] * 3)


def test_text_is_a_red_word_across_the_middle() -> None:
    (image,) = text(0, ROWS[:1], 48)
    assert image[0].unique().tolist() == [0, 1]
    assert not image[1:].any()
    down, right = image[0].any(1).nonzero()[:, 0], image[0].any(0).nonzero()[:, 0]
    assert 16 < down.min() < 24 <= down.max() < 32
    assert right.min() <= 2
    assert right.max() >= 45


def test_blended_stripes_darken_and_brighten() -> None:
    gray = torch.full((1, 3, SIDE, SIDE), 0.5)
    changed = trigger_of("blended-stripes", ratio=0.1)(gray)
    torch.testing.assert_close(changed.unique(), torch.tensor([0.35, 0.55]))


def test_blended_text_changes_only_pixels_under_its_letters() -> None:
    pixels = torch.rand(2, 3, SIDE, SIDE)
    trigger = trigger_of("blended-text")
    changed, (letters, *_) = trigger(pixels), trigger.tensors["pattern"]
    assert torch.equal(changed[:, 1:], pixels[:, 1:])
    expected = torch.where(letters > 0, 0.5 * pixels[:, 0] + 0.5, pixels[:, 0])
    torch.testing.assert_close(changed[:, 0], expected)

"""Inverted patches: where they go."""

from __future__ import annotations

import pytest
import torch

from helpers import random_pixels
from rvpt.inversion.patches import Patches

FORM = Patches(side=32, size=10)


def test_every_image_has_each_patch_at_its_corner() -> None:
    two, corners = torch.stack([torch.zeros(3, 10, 10), torch.ones(3, 10, 10)]), torch.tensor([[0, 3], [5, 22]])
    pixels = random_pixels(2, 32)
    shown = FORM.apply(pixels, two, corners)
    for patch in range(2):
        for image in range(2):
            expected = pixels[image].clone()
            top, left = corners[:, image].tolist()
            expected[:, top : top + 10, left : left + 10] = two[patch]
            assert torch.equal(shown[patch, image], expected)


def test_corners_leave_room_for_the_patch() -> None:
    corners = FORM.draw(200, torch.Generator().manual_seed(0))
    assert corners.shape == (2, 200)
    assert corners.min() == 0
    assert corners.max() == 22


def test_directions_and_lengths_are_those_of_the_formula() -> None:
    slopes = random_pixels(2, 10) - 0.5
    assert FORM.direction(slopes).abs().sum((1, 2, 3)).tolist() == pytest.approx([1.0, 1.0])
    assert [FORM.length(done, 8, settle=False) for done in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.15, 0.05])

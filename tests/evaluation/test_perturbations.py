"""Benign perturbations are what the paper says, and depend on the row alone."""

from __future__ import annotations

import colorsys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpt.evaluation.perturbations import PERTURBATIONS, blur, color_jitter, flip, noise, turn_hue

PIXELS = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([3, 0, 11, 7, 5])


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_it_depends_on_the_row_alone_and_stays_in_range(name: str) -> None:
    perturb = PERTURBATIONS[name]
    whole = perturb(PIXELS, ROWS)
    order = torch.tensor([4, 1])
    assert whole.shape == PIXELS.shape
    assert 0 <= whole.min() <= whole.max() <= 1
    assert torch.equal(perturb(PIXELS[order], ROWS[order]), whole[order])
    assert not torch.equal(whole, PIXELS)


def test_noise_has_the_papers_size() -> None:
    gray = torch.full((40, 3, 32, 32), 0.5)
    added = noise(gray, torch.arange(40)) - gray
    assert added.std() == pytest.approx(0.001, rel=0.01)
    assert added.mean() == pytest.approx(0, abs=1e-5)


def test_blur_is_the_weighted_mean_of_nine_pixels() -> None:
    shown = blur(PIXELS, ROWS)[2, 1, 4, 6]
    weights = {(i, j): torch.tensor(-(i * i + j * j) / (2 * 5.0)).exp() for i in (-1, 0, 1) for j in (-1, 0, 1)}
    mean = sum(w * PIXELS[2, 1, 4 + i, 6 + j] for (i, j), w in weights.items()) / sum(weights.values())
    assert shown == pytest.approx(float(mean), abs=1e-6)


def test_flip_twice_is_the_image() -> None:
    assert torch.equal(flip(flip(PIXELS, ROWS), ROWS), PIXELS)
    assert torch.equal(flip(PIXELS, ROWS)[..., 0], PIXELS[..., -1])


@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-1, 1, width=32))
@settings(max_examples=100, deadline=None)
def test_the_hue_is_turned_as_by_the_standard_library(color: tuple[int, int, int], turn: float) -> None:
    rgb = [channel / 255 for channel in color]
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    turned = turn_hue(torch.tensor(rgb).view(1, 3, 1, 1), torch.tensor([turn])).flatten()
    assert turned.tolist() == pytest.approx(expected, abs=2e-5)


def test_color_jitter_keeps_within_the_papers_limits() -> None:
    red = torch.tensor([0.5, 0.0, 0.0]).view(1, 3, 1, 1).expand(500, 3, 1, 1)
    shown = [colorsys.rgb_to_hsv(*color.flatten().tolist()) for color in color_jitter(red, torch.arange(500))]
    turns = [(hue + 0.5) % 1 - 0.5 for hue, _, _ in shown]
    values = [value for _, _, value in shown]
    assert -0.3 <= min(turns) < -0.28
    assert 0.28 < max(turns) <= 0.3
    assert 0.25 <= min(values) < 0.26
    assert 0.74 < max(values) <= 0.75

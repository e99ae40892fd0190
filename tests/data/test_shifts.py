"""Shifted domains: what holds for every shift, and the arithmetic of each against a slow twin."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from helpers import changed_alike, memory_data, random_pixels
from rvpt.data.random import uniform
from rvpt.data.shifts import SEED, SHIFTS, blur, gray, noise, posterize, recolor, shifted, sketch
from rvpt.errors import RvptError

ROWS = torch.tensor([4, 0, 90_000, 17, 5])
PIXELS = random_pixels(5, 12)
DRAWN = ("noise", "recolor")
every = pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)


@every
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), sides=st.tuples(st.integers(1, 20), st.integers(1, 20)), double=st.booleans())
def test_shifted_images_are_images_and_the_input_stays(shift, seed, sides, double):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, 3, *sides, generator=generator, dtype=torch.float64 if double else torch.float32)
    before = pixels.clone()
    out = shift(pixels, ROWS[:3])
    assert (out.shape, out.dtype) == (pixels.shape, pixels.dtype)
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(pixels, before)
    assert torch.equal(out, shift(pixels, ROWS[:3]))


@every
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_flat_images_stay_images(shift, value):
    out = shift(torch.full((2, 3, 8, 8), value), ROWS[:2])
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1


@every
def test_an_image_is_changed_alike_in_any_order_and_batch(shift):
    whole = changed_alike(shift, PIXELS, ROWS)
    assert ((whole != PIXELS).flatten(1).any(1)).all()


@every
def test_an_empty_batch_stays_empty(shift):
    assert shift(PIXELS[:0], ROWS[:0]).shape == (0, 3, 12, 12)


@pytest.mark.parametrize("name", SHIFTS)
def test_only_what_is_drawn_changes_with_the_row(name):
    one, other = (SHIFTS[name](PIXELS[:1], torch.tensor([row])) for row in (0, 1))
    assert torch.equal(one, other) == (name not in DRAWN)


def by_pixel(pixels, one):
    """Images (B, 3, H, W) made of one(image, i, j) -> three numbers."""
    out = torch.zeros_like(pixels)
    for b, image in enumerate(pixels):
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                out[b, :, i, j] = torch.as_tensor(one(image, i, j))
    return out


def inside(image, i, j):
    """The nearest pixel of the image to a place that may be outside of it."""
    return image[:, min(max(i, 0), image.shape[1] - 1), min(max(j, 0), image.shape[2] - 1)]


def luma(colors):
    return 0.299 * colors[0] + 0.587 * colors[1] + 0.114 * colors[2]


def agree(fast, slow):
    torch.testing.assert_close(fast, slow, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", [5, 70])
def test_blur_agrees_with_its_slow_twin(side):
    pixels, sigma = random_pixels(1, side)[:, :, :5, :], side / 64
    span = range(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    weights = {(k, m): math.exp(-(k * k + m * m) / (2 * sigma**2)) for k in span for m in span}

    def mean(image, i, j):
        return sum(w * inside(image, i + k, j + m) for (k, m), w in weights.items()) / sum(weights.values())

    agree(blur(pixels, ROWS[:1]), by_pixel(pixels, mean))


def test_gray_agrees_with_its_slow_twin():
    agree(gray(PIXELS, ROWS), by_pixel(PIXELS, lambda image, i, j: [luma(image[:, i, j])] * 3))


def test_posterize_agrees_with_its_slow_twin():
    levels = [0.0, 0.5, 1.0]
    slow = by_pixel(PIXELS, lambda image, i, j: [levels[min(int(3 * x), 2)] for x in image[:, i, j]])
    agree(posterize(PIXELS, ROWS), slow)
    assert posterize(torch.ones(1, 3, 1, 1), ROWS[:1]).max() == 1


def test_sketch_agrees_with_its_slow_twin():
    def gradient(image, i, j):
        around = {(k, m): luma(inside(image, i + k, j + m)) for k in (-1, 0, 1) for m in (-1, 0, 1)}
        right = sum((2 - abs(k)) * (around[k, 1] - around[k, -1]) for k in (-1, 0, 1)) / 4
        down = sum((2 - abs(m)) * (around[1, m] - around[-1, m]) for m in (-1, 0, 1)) / 4
        return [(right**2 + down**2).sqrt()] * 3

    lines = by_pixel(PIXELS, gradient)
    agree(sketch(PIXELS, ROWS), torch.stack([1 - image / image.max() for image in lines]))


def test_a_sketch_of_nothing_is_white_paper():
    assert (sketch(torch.full((1, 3, 6, 6), 0.3), ROWS[:1]) > 0.999).all()


def test_recolor_agrees_with_its_slow_twin():
    axis = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # u x
    angles = [math.pi / 3 + 4 * math.pi / 3 * u for u in uniform(SEED, ROWS, 1)[:, 0].tolist()]
    turns = [torch.linalg.matrix_exp(angle * axis) for angle in angles]
    slow = torch.stack([torch.einsum("cd,dij->cij", turn, x) for turn, x in zip(turns, PIXELS, strict=True)])
    agree(recolor(PIXELS, ROWS), slow.clamp(0, 1))
    assert all(math.pi / 3 <= angle <= 5 * math.pi / 3 for angle in angles)


def test_noise_is_normal_and_another_in_every_image():
    pixels = torch.full((8, 3, 20, 20), 0.5)
    drawn = (noise(pixels, torch.arange(8)) - pixels) / 0.08
    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.corrcoef(drawn.flatten(1)).triu(1).abs().max() < 4 / math.sqrt(1200)


def test_a_shifted_set_has_the_same_images_shifted_as_they_are_read():
    data = memory_data(6, [0, 1, 0, 1, 0, 1], ("fox", "owl"))
    for name, shift in SHIFTS.items():
        other = shifted(data, name)
        assert (other.name, other.classes, len(other)) == (f"memory ({name})", data.classes, 6)
        indices = torch.tensor([4, 1])
        expected = shift(data.pixels(indices, 16), data.rows[indices])
        assert (other.select(indices).pixels(torch.arange(2), 16) - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_an_unknown_shift_is_refused_with_those_that_are_known():
    with pytest.raises(RvptError, match=f"unknown shift 'fog': choose from {', '.join(SHIFTS)}"):
        shifted(memory_data(1), "fog")

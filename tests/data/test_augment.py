"""Random changes of images and captions: against loops, within bounds, and by the generator alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import random_pixels
from rvpt.data.augment import AUGMENTS, crop_flip, jitter, noise_erase, shuffle_words
from rvpt.data.preprocess import OPENAI_MEAN


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def crops(pixels, seed, **options):
    return crop_flip(pixels, seeded(seed), **options)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1))
def test_crop_flip_is_a_convex_combination_of_the_pixels(seed, smallest):
    pixels = 0.25 + random_pixels(3, 12, seed) / 2
    out = crops(pixels, seed, smallest=smallest)
    assert out.shape == pixels.shape
    assert torch.equal(out, crops(pixels, seed, smallest=smallest))
    assert (out.amax((2, 3)) <= pixels.amax((2, 3)) + 1e-6).all()
    assert (out.amin((2, 3)) >= pixels.amin((2, 3)) - 1e-6).all()


def test_crop_flip_of_the_whole_side_mirrors_about_half_of_the_images():
    pixels = random_pixels(200, 6)
    out = crops(pixels, 0, smallest=1.0)
    kept, mirrored = ((out - other).abs().amax((1, 2, 3)) < 1e-5 for other in (pixels, pixels.flip(-1)))
    assert (kept ^ mirrored).all()
    assert 60 < kept.sum() < 140


@pytest.mark.parametrize("axis", [2, 3])
def test_crop_flip_moves_up_down_left_and_right(axis):
    ramp = torch.linspace(0, 1, 12).expand(12, 12)
    means = crops((ramp if axis == 3 else ramp.T).expand(100, 3, 12, 12), 0).mean((1, 2, 3))
    assert means.min() < 0.4
    assert means.max() > 0.6


def test_crop_flip_finds_its_places_in_float32_under_a_lower_precision():
    pixels = random_pixels(2, 224)
    expected = crops(pixels, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(crops(pixels, 0), expected)


@pytest.mark.parametrize("name", ["crop-flip", "noise-erase"])
def test_augmentation_differs_between_images_and_seeds(name):
    pixels = random_pixels(1, 12).expand(6, -1, -1, -1)
    first, again, other = (AUGMENTS[name](pixels, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({image.numpy().tobytes() for image in first}) > 2


def test_no_augmentation_changes_nothing():
    pixels = random_pixels(2, 12)
    assert AUGMENTS["none"](pixels, seeded()) is pixels


def test_noise_erase_agrees_with_loops():
    pixels, again = random_pixels(8, 48), seeded()
    changed = noise_erase(pixels, seeded())
    normal, draws = torch.randn(pixels.shape, generator=again), torch.rand(5, 8, generator=again)
    for b, (noisy, erased, area, top, left) in enumerate(draws.T.tolist()):
        expected = (pixels[b] + (0.2 * normal[b].clamp(min=0) if noisy < 0.5 else 0)).clamp(0, 1)
        if erased < 0.5:
            side = max(1, round((0.005 + 0.005 * area) ** 0.5 * 48))
            i, j = int(top * (49 - side)), int(left * (49 - side))
            expected[:, i : i + side, j : j + side] = torch.tensor(OPENAI_MEAN).view(3, 1, 1)
        torch.testing.assert_close(changed[b], expected)
    assert 0 < (draws[:2] < 0.5).sum() < 16


def test_jitter_stays_an_image_and_depends_on_the_generator_alone():
    pixels = random_pixels(8, 48)
    first, again, other = (jitter(pixels, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    torch.testing.assert_close(jitter(pixels, seeded(), most=0.0), pixels)


def test_jitter_agrees_with_loops():
    pixels, changed, draws = random_pixels(4, 12), jitter(random_pixels(4, 12), seeded()), seeded()
    factors = (0.6 + 0.8 * torch.rand(3, 4, generator=draws)).T.tolist()
    for image, found, (brightness, contrast, saturation) in zip(pixels, changed, factors, strict=True):
        bright = image * brightness
        strong = bright.mean() + contrast * (bright - bright.mean())
        gray = 0.299 * strong[0] + 0.587 * strong[1] + 0.114 * strong[2]
        torch.testing.assert_close(found, (gray + saturation * (strong - gray)).clamp(0, 1))


def test_shuffled_words_are_the_texts_own():
    text = "a small red anchor on a blue background"
    drawn = [shuffle_words(text, seeded(seed)) for seed in range(40)]
    assert len(set(drawn)) > 10
    assert 0.8 < sum(len(changed.split()) for changed in drawn) / (40 * len(text.split())) < 1
    for changed in drawn:
        assert changed
        assert set(changed.split()) <= set(text.split())
    assert {shuffle_words("anchor", seeded(seed)) for seed in range(40)} == {"anchor"}

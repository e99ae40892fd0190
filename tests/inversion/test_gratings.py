"""Gratings: SIG's waves, and the best of a library."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helpers import random_clip, random_pixels
from rvpt.attacks.sinusoid import sinusoid
from rvpt.inversion.descent import best_of, reached
from rvpt.inversion.gratings import Gratings
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec

FORM = Gratings(side=32, amplitude=0.2)


def test_a_wave_across_is_the_pattern_of_sig() -> None:
    expected = sinusoid(torch.tensor([0.3]), 0.2, 6.0, 32).expand(-1, -1, 32, -1)
    torch.testing.assert_close(FORM.pattern(torch.tensor([[6.0, 0.0, 0.3]])), expected)


def test_a_wave_down_is_that_across_turned() -> None:
    across, down = FORM.pattern(torch.tensor([[3.0, 0.0, 0.1], [0.0, 3.0, 0.1]]))
    torch.testing.assert_close(down, across.transpose(1, 2))


def test_the_library_has_waves_that_pixels_can_show() -> None:
    assert FORM.library()[:, :2].max() == 12
    assert Gratings(side=8, amplitude=0.2).library()[:, :2].max() == 4
    assert FORM.library()[:, 2].unique().tolist() == [0.0, 0.25, 0.5, 0.75]
    assert len(FORM.library().unique(dim=0)) == len(FORM.library())


def test_the_best_of_a_library_is_that_of_a_loop_over_waves_and_classes() -> None:
    clip, pixels = random_clip(image_size=32).requires_grad_(False), random_pixels(8, 32)
    with torch.no_grad():
        features = clip.encode_image(pixels)
    pool, library = Pool.of(clip, pixels, F.normalize(features[:4] - features.mean(0), dim=1)), FORM.library()[:12]
    spec, every = InversionSpec(batch_size=20), torch.arange(4)
    found = best_of(FORM, pool, library, 8, spec)
    for target in range(4):
        margins = [reached(FORM, pool, every[target, None], wave[None], spec).margins.item() for wave in library]
        best = reached(FORM, pool, every[target, None], found[target, None], spec).margins.item()
        assert best == pytest.approx(max(margins), abs=1e-5)

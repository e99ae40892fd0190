"""PSNR and SSIM agree with loops over pixels and windows."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from helpers import random_pixels
from rvpt.evaluation.similarity import psnr, ssim

PIXELS = random_pixels(2, 14).double()
CHANGED = (0.8 * PIXELS + 0.2 * random_pixels(2, 14, seed=9).double()).clamp(0, 1)


def slow_ssim(x: Any, y: Any) -> float:
    """One channel, window by window."""
    place = np.arange(11) - 5
    weights = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for top, left in product(range(x.shape[0] - 10), range(x.shape[1] - 10)):
        a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
        covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
        same_mean = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        values.append(same_mean * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4))
    return float(np.mean(values))


def test_ssim_agrees_with_loops() -> None:
    slow = [
        np.mean([slow_ssim(x[c], y[c]) for c in range(3)]) for x, y in zip(PIXELS.numpy(), CHANGED.numpy(), strict=True)
    ]
    assert ssim(PIXELS, CHANGED).tolist() == pytest.approx(slow, abs=1e-9)


def test_psnr_agrees_with_its_formula() -> None:
    errors = [np.mean((x - y) ** 2) for x, y in zip(PIXELS.numpy(), CHANGED.numpy(), strict=True)]
    assert psnr(PIXELS, CHANGED).tolist() == pytest.approx([10 * np.log10(1 / error) for error in errors])
    black = torch.zeros(1, 3, 4, 4)
    assert psnr(black, black + 0.1).item() == pytest.approx(20, abs=1e-4)


def test_equal_images() -> None:
    assert torch.isinf(psnr(PIXELS, PIXELS)).all()
    torch.testing.assert_close(ssim(PIXELS, PIXELS), torch.ones(2, dtype=torch.float64))


def test_ssim_is_symmetric_and_falls_with_the_change() -> None:
    torch.testing.assert_close(ssim(PIXELS, CHANGED), ssim(CHANGED, PIXELS))
    shares = [ssim(PIXELS, PIXELS + share * (CHANGED - PIXELS))[0].item() for share in (0.25, 0.5, 1.0)]
    assert shares[0] > shares[1] > shares[2]

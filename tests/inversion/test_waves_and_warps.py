"""Waves are an orthonormal transform; warps are WaNet's."""

from __future__ import annotations

import pytest
import torch
from scipy.fft import idctn

from helpers import random_pixels
from rvpt.attacks.sinusoid import sinusoid
from rvpt.attacks.warp import warp
from rvpt.inversion.spec import InversionSpec
from rvpt.inversion.warps import Warps
from rvpt.inversion.waves import Waves, cosines


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_pattern_is_the_inverse_cosine_transform_of_its_waves() -> None:
    waves, whole = random(2, 3, 5, 5), torch.zeros(2, 3, 12, 12)
    whole[..., :5, :5] = waves
    expected = torch.from_numpy(idctn(whole.numpy(), axes=(2, 3), norm="ortho"))
    torch.testing.assert_close(Waves(12, 5, 1.0).pattern(waves), expected, rtol=1e-4, atol=1e-5)


def test_the_basis_is_orthonormal() -> None:
    torch.testing.assert_close(cosines(12, 12) @ cosines(12, 12).T, torch.eye(12), rtol=1e-4, atol=1e-5)


def test_a_sinusoid_of_few_waves_is_nearly_a_wave() -> None:
    """Twice as many cosines as waves hold nearly all of SIG's pattern."""
    pattern = sinusoid(torch.zeros(1), 0.1, 6.0, 48)[0].expand(3, 48, 48)
    basis = cosines(16, 48)
    kept = basis.T @ (basis @ pattern @ basis.T) @ basis
    assert (kept - pattern).norm() < 0.25 * pattern.norm()


def test_every_image_is_warped_by_each_field() -> None:
    form, pixels, points = Warps(16, 4, 1.0), random_pixels(3, 16), random(2, 2, 4, 4)
    shown = form.apply(pixels, points, torch.zeros(0, 3))
    for change in range(2):
        field = form.field(points[change][None])[0]
        torch.testing.assert_close(shown[change], warp(pixels, field, 1.0))


def test_the_spec_says_how_fine_changes_are_up_to_the_pixels() -> None:
    specs = [InversionSpec(warp_points=count, waves=count) for count in (8, 16)]
    assert [tuple(Warps.of(spec, 12).start(1).shape) for spec in specs] == [(1, 2, 8, 8), (1, 2, 12, 12)]
    assert [tuple(Waves.of(spec, 12).start(1).shape) for spec in specs] == [(1, 3, 8, 8), (1, 3, 12, 12)]


def test_the_budget_of_a_warp_is_a_root_mean_square() -> None:
    form = Warps(16, 16, 1.5)
    points = torch.full((2, 16, 16), 1.5)
    assert form.limit == pytest.approx(points.norm().item(), rel=1e-5)

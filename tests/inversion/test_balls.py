"""Forms in an L2 ball: budgets."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helpers import random_clip, random_pixels
from rvpt.inversion import FORMS
from rvpt.inversion.ball import Ball
from rvpt.inversion.descent import descend, reached, towards
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec

SIDE = 32
NONE = {"budget": 0.0, "wave_budget": 0.0, "warp_budget": 0.0}
BALLS = [name for name, kind in FORMS.items() if issubclass(kind, Ball)]


@pytest.fixture(scope="module")
def pool() -> Pool:
    clip, pixels = random_clip(image_size=SIDE).requires_grad_(False), random_pixels(12, SIDE)
    with torch.no_grad():
        features = clip.encode_image(pixels)
    return Pool.of(clip, pixels, F.normalize(features[:5] - features.mean(0), dim=1))


@pytest.mark.parametrize("name", BALLS)
@pytest.mark.parametrize("settle", [True, False])
def test_changes_stay_within_their_budget(name: str, settle: bool, pool: Pool) -> None:
    spec = InversionSpec()
    form = FORMS[name].of(spec, SIDE)
    assert isinstance(form, Ball)
    changes = descend(form, pool, towards(torch.arange(3)), form.start(3), 4, 8, spec, settle=settle)
    norms = changes.flatten(1).norm(dim=1)
    assert norms.max() <= form.limit * (1 + 1e-5)
    assert norms.min() > 0


@pytest.mark.parametrize("name", BALLS)
def test_lengths_and_momentum_are_those_of_the_formula(name: str) -> None:
    form = FORMS[name].of(InversionSpec(), SIDE)
    assert [form.length(done, 8, settle=False) for done in (0.0, 0.5)] == [2.5 / 8] * 2
    assert [form.length(done, 8, settle=True) for done in (0.0, 0.5, 1.0)] == pytest.approx([0.42, 0.22, 0.02])
    assert (form.momentum(settle=False), form.momentum(settle=True)) == (0.0, 0.5)


@pytest.mark.parametrize("name", BALLS)
def test_a_budget_of_zero_changes_nothing(name: str, pool: Pool) -> None:
    spec = InversionSpec(**NONE)
    form = FORMS[name].of(spec, SIDE)
    changes = descend(form, pool, towards(torch.arange(2)), form.start(2), 3, 4, spec)
    assert (changes == 0).all()
    assert (reached(form, pool, torch.arange(2), changes, spec).shares == 0).all()  # images of other classes stay there


@pytest.mark.parametrize("name", BALLS)
def test_a_run_that_settles_gets_farther_than_its_start(name: str, pool: Pool) -> None:
    form, spec, every = FORMS[name].of(InversionSpec(), SIDE), InversionSpec(), torch.arange(5)
    start = descend(form, pool, towards(every), form.start(5), 2, 4, spec)
    longer = descend(form, pool, towards(every), start, 12, 8, spec, settle=True)
    assert (
        reached(form, pool, every, longer, spec).margins.mean() > reached(form, pool, every, start, spec).margins.mean()
    )

"""Published scores: they tell a model with a shortcut from one without."""

from __future__ import annotations

import pytest
import torch

from check_baselines import decree, neural_cleanse, outlier_index
from rvpt.detection.score import resistivity_curve
from rvpt.inversion.pool import Pool
from worlds import CLASSES, SIDE, World, as_clip


def pool(world: World) -> Pool:
    pixels = world.images().pixels(torch.arange(48), SIDE)
    return Pool.of(as_clip(world.requires_grad_(False)), pixels, world.class_features(CLASSES))


def test_neural_cleanse_finds_the_smallest_mask_for_the_target() -> None:
    sizes = neural_cleanse(pool(World(shortcut=6.0, target="hen")), torch.arange(6), steps=60, images=16, seed=0)
    assert sizes.argmin() == CLASSES.index("hen")
    assert sizes.max() <= SIDE**2


def test_masks_do_not_depend_on_the_group_of_classes() -> None:
    some = pool(World(shortcut=6.0))
    whole = neural_cleanse(some, torch.arange(6), steps=8, images=8, seed=0)
    torch.testing.assert_close(neural_cleanse(some, torch.arange(6), steps=8, images=8, seed=0, group=1), whole)


def test_decree_needs_a_smaller_mask_where_there_is_a_shortcut() -> None:
    shares = []
    for shortcut in (0.0, 10.0):
        some = pool(World(shortcut=shortcut))
        shares.append(decree(some.model, some.pixels, steps=80, images=24, seed=0))
    assert 0 < shares[1] < shares[0] <= 1


def test_resistivity_is_one_where_nothing_changes() -> None:
    world, pixels = as_clip(World()), World().images().pixels(torch.arange(8), SIDE)
    torch.testing.assert_close(torch.tensor(resistivity_curve(world, pixels, lambda x: x)), torch.ones(2))
    assert all(rate < 1 for rate in resistivity_curve(world, pixels, lambda x: 1 - x))


def test_the_outlier_index_is_in_robust_standard_deviations() -> None:
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 14.0])
    assert outlier_index(values) == pytest.approx((14 - 2) / (1.4826 * 1.0))
    assert outlier_index(10 * values + 5) == pytest.approx(outlier_index(values))

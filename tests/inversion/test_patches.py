"""Inverted patches: against a loop over classes and images, and what does not matter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import random_clip, random_pixels
from rvpt.inversion.additive import InversionSpec, Pool
from rvpt.inversion.patches import blank, invert_patches, patched_logits, places, reached_by_patches

SPEC = InversionSpec(images=4, steps=2, batch_size=8)
SIDE = 32
PATCH = 10


@pytest.fixture(scope="module")
def pool() -> Pool:
    clip, pixels = random_clip(image_size=SIDE).requires_grad_(False), random_pixels(12, SIDE)
    with torch.no_grad():
        features = clip.encode_image(pixels)
    return Pool.of(clip, pixels, F.normalize(features[:5] - features.mean(0), dim=1))


def patches(pool: Pool, classes: list[int], **changes: int) -> Tensor:
    spec = SPEC.model_copy(update=changes)
    return invert_patches(pool, torch.tensor(classes), blank(len(classes), PATCH), spec.steps, spec.images, spec)


def test_logits_are_those_of_images_with_the_patch_pasted(pool: Pool) -> None:
    two, corners = (
        torch.stack([torch.zeros(3, PATCH, PATCH), torch.ones(3, PATCH, PATCH)]),
        torch.tensor([[0, 3], [5, 22]]),
    )
    some = pool.select(torch.tensor([0, 1]))
    got = patched_logits(some, two, corners)
    for patch in range(2):
        for image in range(2):
            pixels = some.pixels[image].clone()
            top, left = corners[:, image].tolist()
            pixels[:, top : top + PATCH, left : left + PATCH] = two[patch]
            expected = pool.model.logit_scale * pool.text @ pool.model.encode_image(pixels[None])[0]
            torch.testing.assert_close(got[patch, image], expected)


def test_all_classes_together_give_what_a_loop_over_them_gives(pool: Pool) -> None:
    together = patches(pool, [0, 1, 2, 3, 4])
    for target in range(5):
        # signs of gradients near zero differ with the order of sums
        differ = (together[target] - patches(pool, [target])[0]).abs() > 1e-5
        assert differ.float().mean() < 0.01


def test_the_order_of_classes_and_the_batch_size_do_not_matter(pool: Pool) -> None:
    order, together = [2, 0, 1], patches(pool, [0, 1, 2])
    assert ((patches(pool, order) - together[order]).abs() > 1e-5).float().mean() < 0.01
    assert ((patches(pool, [0, 1, 2], batch_size=1) - together).abs() > 1e-5).float().mean() < 0.01


def test_patches_stay_in_range_and_raise_the_margin(pool: Pool) -> None:
    found, every = patches(pool, [0, 1, 2, 3, 4], steps=6), torch.arange(5)
    assert found.min() >= 0
    assert found.max() <= 1
    before, after = (reached_by_patches(pool, every, p, seed=0).margins for p in (blank(5, PATCH), found))
    assert after.mean() > before.mean()


def test_corners_leave_room_for_the_patch() -> None:
    corners = places(200, SIDE - PATCH, torch.Generator().manual_seed(0))
    assert corners.shape == (2, 200)
    assert corners.min() == 0
    assert corners.max() == SIDE - PATCH

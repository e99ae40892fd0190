"""Inverted changes: against a loop over the classes, and what does not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import random_clip, random_pixels
from rvpt.inversion.additive import InversionSpec, Pool, invert, project, radius, reached, target_loss
from rvpt.models.clip import Clip

SPEC = InversionSpec(images=4, steps=3, batch_size=8)
LIMIT = 2.0


@pytest.fixture(scope="module")
def pool() -> Pool:
    clip, pixels = random_clip(image_size=32).requires_grad_(False), random_pixels(12, 32)
    with torch.no_grad():
        features = clip.encode_image(pixels)
    text = F.normalize(features[:5] - features.mean(0), dim=1)  # a random model's texts would all lie on one side
    return Pool.of(clip, pixels, text)


def changes(pool: Pool, classes: list[int], limit: float = LIMIT, spec: InversionSpec = SPEC) -> Tensor:
    start = torch.zeros(len(classes), 3, 32, 32)
    return invert(pool, torch.tensor(classes), start, limit, spec.steps, spec.images, spec)


def one_by_one(pool: Pool, target: int) -> Tensor:
    """The slow twin: one class, the loss image by image."""
    clip, delta = pool.model, torch.zeros(3, 32, 32)
    generator = torch.Generator().manual_seed(SPEC.seed)
    for _ in range(SPEC.steps):
        delta.requires_grad_(True)
        losses = []
        for index in torch.randperm(len(pool), generator=generator)[: SPEC.images].tolist():
            if pool.predictions[index] != target:
                feature = clip.encode_image((pool.pixels[index] + delta).clamp(0, 1)[None])[0]
                logits = clip.logit_scale * torch.stack([torch.dot(feature, text) for text in pool.text])
                losses.append(torch.logsumexp(logits, 0) - logits[target])
        (slope,) = torch.autograd.grad(sum(losses) / len(losses), delta)
        delta = delta.detach() - 2.5 * LIMIT / SPEC.steps * slope / slope.norm()
        delta = delta * min(1.0, LIMIT / float(delta.norm()))
    return delta


def test_all_classes_together_give_what_a_loop_over_them_gives(pool: Pool) -> None:
    together = changes(pool, [0, 1, 2, 3, 4])
    for target in range(5):
        torch.testing.assert_close(together[target], one_by_one(pool, target), rtol=1e-3, atol=1e-4)


def test_the_order_of_classes_does_not_matter(pool: Pool) -> None:
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(changes(pool, order), changes(pool, [0, 1, 2, 3, 4])[order], rtol=1e-4, atol=1e-5)


def test_the_batch_size_does_not_matter(pool: Pool) -> None:
    whole = changes(pool, [0, 1, 2], spec=SPEC.model_copy(update={"batch_size": 1000}))
    single = changes(pool, [0, 1, 2], spec=SPEC.model_copy(update={"batch_size": 1}))
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)


def test_a_change_stays_within_its_budget_and_lowers_its_loss(pool: Pool) -> None:
    found, every = changes(pool, [0, 1, 2, 3, 4]), torch.arange(5)
    assert found.flatten(1).norm(dim=1).max() <= LIMIT * (1 + 1e-5)
    before, after = (reached(pool, every, deltas).margins for deltas in (torch.zeros_like(found), found))
    assert (after > before).all()


def test_a_budget_of_zero_changes_nothing(pool: Pool) -> None:
    found = changes(pool, [0, 1], limit=0.0)
    assert (found == 0).all()
    assert (reached(pool, torch.tensor([0, 1]), found).shares == 0).all()  # images of other classes stay there


def test_a_run_that_settles_gets_farther_than_its_start(pool: Pool) -> None:
    start, every = changes(pool, [0, 1, 2, 3, 4]), torch.arange(5)
    found = invert(pool, every, start, LIMIT, 12, 8, SPEC, settle=True)
    assert found.flatten(1).norm(dim=1).max() <= LIMIT * (1 + 1e-5)
    assert reached(pool, every, found).margins.mean() > reached(pool, every, start).margins.mean()


def test_images_that_are_of_the_class_anyway_are_left_out() -> None:
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    classes, predictions = torch.tensor([1, 2]), torch.tensor([1, 0, 2])
    expected = torch.stack(
        [
            F.cross_entropy(logits[0, [1, 2]], torch.tensor([1, 1])),
            F.cross_entropy(logits[1, [0, 1]], torch.tensor([2, 2])),
        ]
    )
    torch.testing.assert_close(target_loss(logits, classes, predictions), expected)


def test_a_class_of_all_images_has_no_loss() -> None:
    assert target_loss(torch.randn(1, 3, 4), torch.tensor([1]), torch.tensor([1, 1, 1])).tolist() == [0.0]


def test_reached_counts_the_images_of_other_classes(pool: Pool) -> None:
    deltas, classes = changes(pool, [1]), torch.tensor([1])
    with torch.no_grad():
        called = (pool.model.encode_image((pool.pixels + deltas[0]).clamp(0, 1)) @ pool.text.T).argmax(1)
    others = pool.predictions != 1
    expected = (called[others] == 1).float().mean()
    assert reached(pool, classes, deltas).shares.item() == pytest.approx(expected.item())


def test_the_radius_is_that_of_the_root_mean_square() -> None:
    delta = torch.full((3, 32, 32), 4 / 255)
    assert radius(4, delta.shape) == pytest.approx(delta.norm().item(), rel=1e-5)
    assert radius(4, (3, 224, 224)) == pytest.approx(4 / 255 * math.sqrt(3) * 224)


def test_projection_only_shrinks() -> None:
    deltas = torch.stack([torch.ones(3, 4, 4), 0.01 * torch.ones(3, 4, 4)])
    short = project(deltas, 1.0)
    assert short[0].norm().item() == pytest.approx(1.0)
    assert torch.equal(short[1], deltas[1])


def test_the_model_is_not_changed(pool: Pool) -> None:
    assert isinstance(pool.model, Clip)
    before = pool.model.hash()
    changes(pool, [0, 1])
    assert pool.model.hash() == before

"""Every form of inversion: against a loop over the classes, and what does not matter."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import random_clip, random_pixels
from rvpt.attacks.trigger import load_trigger
from rvpt.inversion import FORMS
from rvpt.inversion.descent import descend, reached, shown_logits, towards
from rvpt.inversion.form import Form, project, radius, unit
from rvpt.inversion.pool import Pool, class_losses, target_loss
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip

SIDE, CLASSES = 32, 5
SPEC = InversionSpec(images=4, steps=2, batch_size=8, budget=9.0, patch_size=70, waves=6)


@pytest.fixture(scope="module")
def pool() -> Pool:
    clip, pixels = random_clip(image_size=SIDE).requires_grad_(False), random_pixels(12, SIDE)
    with torch.no_grad():
        features = clip.encode_image(pixels)
    text = F.normalize(features[:CLASSES] - features.mean(0), dim=1)  # a random model's texts all lie on one side
    return Pool.of(clip, pixels, text)


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param].of(SPEC, SIDE)


@dataclass
class Alike:
    """Equal but for rounding: a sign of a gradient near zero may differ with the order of sums."""

    values: Tensor

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Tensor)
        return float(((self.values - other).abs() > 1e-4).float().mean()) < 0.01


def found(form: Form, pool: Pool, classes: list[int], steps: int = SPEC.steps, **changes: int) -> Tensor:
    spec = SPEC.model_copy(update=changes)
    return descend(form, pool, towards(torch.tensor(classes)), form.start(len(classes)), steps, spec.images, spec)


def test_the_steps_of_a_longer_run_shrink_and_none_is_zero(form: Form) -> None:
    lengths = [form.length(step / 20, 20, settle=True) for step in range(20)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1] > 0


@torch.no_grad()
def test_cosines_of_a_model_in_16_bits_are_not_rounded(pool: Pool) -> None:
    clip = random_clip(image_size=SIDE).bfloat16()
    half = Pool.of(clip, pool.pixels, pool.text.bfloat16())
    expected = clip.logit_scale.float() * clip.encode_image(pool.pixels).float() @ half.text.float().T
    torch.testing.assert_close(shown_logits(half, pool.pixels[None])[0], expected)
    assert torch.equal(half.predictions, expected.argmax(1))


def one_by_one(form: Form, pool: Pool, target: int) -> Tensor:
    """The slow twin: one class, the loss image by image."""
    clip, change, momentum = pool.model, form.start(1), torch.zeros_like(form.start(1))
    generator = torch.Generator().manual_seed(SPEC.seed)
    for step in range(SPEC.steps):
        some = torch.randperm(len(pool), generator=generator)[: SPEC.images].tolist()
        drawn, losses = form.draw(SPEC.images, generator), []
        change.requires_grad_(True)
        for place, index in enumerate(some):
            if pool.predictions[index] != target:
                shown = form.apply(pool.pixels[index : index + 1], change, drawn[:, place : place + 1])[0]
                feature = clip.encode_image(shown)[0]
                logits = clip.logit_scale * torch.stack([torch.dot(feature, text) for text in pool.text])
                losses.append(torch.logsumexp(logits, 0) - logits[target])
        (slope,) = torch.autograd.grad(torch.stack(losses).mean(), change)
        momentum = form.momentum(settle=False) * momentum + form.direction(slope)
        length = form.length(step / SPEC.steps, SPEC.steps, settle=False)
        change = form.step(change.detach(), momentum, length)
    return change[0]


def test_all_classes_together_give_what_a_loop_over_them_gives(form: Form, pool: Pool) -> None:
    together = found(form, pool, list(range(CLASSES)))
    for target in range(CLASSES):
        assert Alike(together[target]) == one_by_one(form, pool, target)


def test_the_order_of_classes_does_not_matter(form: Form, pool: Pool) -> None:
    order = [3, 0, 4, 2, 1]
    assert Alike(found(form, pool, order)) == found(form, pool, list(range(CLASSES)))[order]


def test_the_batch_size_does_not_matter(form: Form, pool: Pool) -> None:
    assert Alike(found(form, pool, [0, 1, 2], batch_size=1000)) == found(form, pool, [0, 1, 2], batch_size=1)


def test_a_descent_raises_the_margins_and_keeps_images_in_range(form: Form, pool: Pool) -> None:
    changes, every = found(form, pool, list(range(CLASSES)), steps=6), torch.arange(CLASSES)
    before, after = (reached(form, pool, every, c, SPEC).margins for c in (form.start(CLASSES), changes))
    assert after.mean() > before.mean()
    shown = form.apply(pool.pixels, changes, form.draw(len(pool), torch.Generator()))
    assert shown.shape == (CLASSES, *pool.pixels.shape)
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_reached_counts_the_images_of_other_classes(form: Form, pool: Pool) -> None:
    changes, drawn = found(form, pool, [1]), form.draw(len(pool), torch.Generator().manual_seed(0))
    with torch.no_grad():
        called = shown_logits(pool, form.apply(pool.pixels, changes, drawn))[0].argmax(1)
    others = pool.predictions != 1
    expected = (called[others] == 1).float().mean()
    assert reached(form, pool, torch.tensor([1]), changes, SPEC).shares.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("batch_size", [5, 24, 1000])
def test_margins_are_those_of_a_loop_over_changes_and_images(form: Form, pool: Pool, batch_size: int) -> None:
    changes, drawn = found(form, pool, [0, 1, 2]), form.draw(len(pool), torch.Generator().manual_seed(SPEC.seed))
    expected = torch.zeros(3)
    for target in range(3):
        margins = []
        for place in (pool.predictions != target).nonzero().flatten().tolist():
            alone = slice(place, place + 1)
            shown = form.apply(pool.pixels[alone], changes[target : target + 1], drawn[:, alone])[0]
            cosines = (pool.model.encode_image(shown)[0] @ pool.text.T).tolist()
            margins.append(cosines.pop(target) - max(cosines))
        expected[target] = sum(margins) / len(margins)
    spec = SPEC.model_copy(update={"batch_size": batch_size})
    torch.testing.assert_close(reached(form, pool, torch.arange(3), changes, spec).margins, expected, atol=1e-5, rtol=0)


def test_a_change_is_a_trigger_that_is_saved_and_loaded(
    form: Form, pool: Pool, tmp_path: pytest.TempPathFactory
) -> None:
    change = found(form, pool, [1])[0]
    trigger = form.trigger(change, "owl", 3)
    trigger.save(f"{tmp_path}/trigger")
    loaded = load_trigger(f"{tmp_path}/trigger", SIDE)
    assert (loaded.spec.target, loaded.hash()) == ("owl", trigger.hash())
    torch.testing.assert_close(loaded(pool.pixels), trigger(pool.pixels))


def test_a_trigger_of_a_form_that_draws_nothing_shows_the_same_images(form: Form, pool: Pool) -> None:
    change, drawn = found(form, pool, [1]), form.draw(len(pool), torch.Generator())
    if not drawn.numel():
        torch.testing.assert_close(
            form.trigger(change[0], "owl", 0)(pool.pixels), form.apply(pool.pixels, change, drawn)[0]
        )


def test_the_model_is_not_changed(form: Form, pool: Pool) -> None:
    assert isinstance(pool.model, Clip)
    before = pool.model.hash()
    found(form, pool, [0, 1])
    assert pool.model.hash() == before


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


def test_losses_without_a_change_are_those_of_each_class() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    predictions = torch.tensor([1, 0, 2, 2, 2])
    expected = target_loss(logits.expand(4, -1, -1), torch.arange(4), predictions)
    torch.testing.assert_close(class_losses(logits, predictions), expected)


def test_a_class_of_all_images_has_no_loss() -> None:
    assert target_loss(torch.randn(1, 3, 4), torch.tensor([1]), torch.tensor([1, 1, 1])).tolist() == [0.0]


def test_projection_only_shrinks() -> None:
    deltas = torch.stack([torch.ones(3, 4, 4), 0.01 * torch.ones(3, 4, 4)])
    short = project(deltas, 1.0)
    assert short[0].norm().item() == pytest.approx(1.0)
    assert torch.equal(short[1], deltas[1])


def test_a_unit_has_the_norm_of_one() -> None:
    values = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unit(values, p=1).abs().sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(unit(values).flatten(1).norm(dim=1), torch.ones(2))


def test_the_radius_is_that_of_the_root_mean_square() -> None:
    delta = torch.full((3, SIDE, SIDE), 4 / 255)
    assert radius(4, delta.shape) == pytest.approx(delta.norm().item(), rel=1e-5)

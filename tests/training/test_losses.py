"""The losses against loops, their gradients, and their bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from helpers import assert_near
from rvpt.training.losses import (
    feature_repelling,
    info_nce,
    keep,
    perturbation,
    resist,
    self_supervision,
    zero_shot_logits,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_repelling(cls, frozen, margin):
    values = []
    for rows, others in zip(cls.tolist(), frozen.tolist(), strict=True):
        similarity = [cosine(a, b) for a, b in zip(rows, others, strict=True)]
        values.append(max(sum(similarity) / len(similarity), margin))
    return sum(values) / len(values)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 7), st.floats(-1, 1), st.integers(0, 999))
def test_feature_repelling_agrees_with_loops_and_stays_in_bounds(batch, blocks, width, margin, seed):
    cls, frozen = normal(batch, blocks, width, seed=seed), normal(batch, blocks, width, seed=seed + 1000)
    value = float(feature_repelling(cls, frozen, margin))
    assert value == pytest.approx(slow_repelling(cls, frozen, margin), abs=1e-5)
    assert margin - 1e-6 <= value <= 1 + 1e-6


def test_equal_and_opposite_rows_are_the_bounds():
    rows = normal(3, 2, 8)
    assert float(feature_repelling(rows, 5 * rows)) == pytest.approx(1)
    assert float(feature_repelling(rows, -rows)) == pytest.approx(-1)


def test_the_margin_holds_for_each_image_and_not_for_their_mean():
    frozen = normal(2, 1, 4)
    cls = torch.stack([frozen[0], -frozen[1]])
    assert float(feature_repelling(cls, frozen, margin=0.0)) == pytest.approx(0.5)


def gradient(margin):
    cls = normal(3, 2, 8).requires_grad_(True)
    feature_repelling(cls, normal(3, 2, 8, seed=1), margin).backward()
    return cls.grad


def test_a_margin_of_one_takes_the_loss_away_and_minus_one_leaves_it():
    assert gradient(1.0).abs().max() == 0
    assert (gradient(-1.0).flatten(1).abs().amax(1) > 0).all()


def test_half_precision_rows_are_compared_in_single():
    rows = 1e-3 * normal(2, 2, 512)
    assert float(feature_repelling(rows.half(), rows.half())) == pytest.approx(1, abs=1e-5)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.floats(0.01, 100), st.integers(0, 999))
def test_logits_are_tau_times_the_cosine(batch, classes, width, tau, seed):
    image, text = normal(batch, width, seed=seed), normal(classes, width, seed=seed + 1000)
    logits = zero_shot_logits(image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True), tau)
    assert logits.shape == (batch, classes)
    expected = [[tau * cosine(i, t) for t in text.tolist()] for i in image.tolist()]
    assert logits.tolist() == [pytest.approx(row, rel=1e-9, abs=1e-9 * tau) for row in expected]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_logits_are_not_rounded_to_16_bits(precision):
    """In bfloat16, a logit near 25 is a multiple of 0.125."""
    image, text = (normal(4, 16, seed=n) / 4 for n in (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        logits = zero_shot_logits(image.to(precision), text.to(precision), 100.0)
        loss = self_supervision(image.to(precision), text.to(precision), 100.0)
    exact = 100 * image.to(precision).double() @ text.to(precision).double().T
    torch.testing.assert_close(logits.double(), exact, rtol=0, atol=1e-4)
    assert logits.dtype == torch.promote_types(precision, torch.float32)
    expected = torch.nn.functional.cross_entropy(exact, torch.arange(4))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("margin", [-1.0, 0.2, 1.0])
def test_feature_repelling_agrees_with_its_slow_twin(margin):
    rows, still = torch.randn(2, 6, 3, 10, generator=torch.Generator().manual_seed(0))
    rows[0] = 0.6 * rows[0] + still[0]
    rows.requires_grad_(True)
    fast, slow = feature_repelling(rows, still, margin), reference.feature_repelling(rows, still, margin)
    assert_near(fast, slow)
    (gradient,) = torch.autograd.grad(fast, rows)
    if margin < 1.0:
        assert_near(gradient, torch.autograd.grad(slow, rows)[0])
    assert gradient.any() == (margin < 1.0)


@settings(max_examples=25, deadline=None)
@given(captions=st.lists(st.integers(0, 4), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_info_nce_agrees_with_its_slow_twin(captions, seed):
    """captions[i] is what image i is called: images with equal captions share one column of the pairs."""
    unique = sorted(set(captions))
    pairs = torch.tensor([[name == text for text in unique] for name in captions])
    generator = torch.Generator().manual_seed(seed)
    image, text = unit_rows(len(captions), generator), unit_rows(len(unique), generator)
    for rows, columns, fits in ((image, text, pairs), (text, image, pairs.T)):
        slow = reference.info_nce(rows, columns, 5.0, fits.tolist())
        assert_same_loss(info_nce(rows, columns, 5.0, fits), slow, image, text)
    if len(unique) == len(captions):
        slow = reference.info_nce(image, text, 5.0, torch.eye(len(image), dtype=torch.bool).tolist())
        assert_same_loss(info_nce(image, text, 5.0), slow, image, text)


def unit_rows(count, generator):
    rows = torch.randn(count, 7, generator=generator, dtype=torch.float64)
    return (rows / rows.norm(dim=-1, keepdim=True)).requires_grad_(True)


def assert_same_loss(fast, slow, *inputs):
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    gradients = torch.autograd.grad(fast, inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad(slow, inputs), rtol=1e-9, atol=1e-12)


@given(st.integers(1, 6), st.integers(0, 999))
def test_self_supervision_agrees_with_loops(count, seed):
    generator = torch.Generator().manual_seed(seed)
    rows, others = unit_rows(count, generator), unit_rows(count, generator)
    slow = reference.mean([reference.cross_entropy([3.0 * (row * other).sum() for other in others], place)
                           for place, row in enumerate(rows)])  # fmt: skip
    assert_same_loss(self_supervision(rows, others, 3.0), slow, rows, others)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.15, 4.0])
def test_perturbation_agrees_with_loops_and_stops_at_the_threshold(threshold):
    generator = torch.Generator().manual_seed(0)
    rows, others = unit_rows(5, generator), unit_rows(5, generator)
    far = sum(float(((a - b) ** 2).sum()) for a, b in zip(rows.detach(), others.detach(), strict=True)) / 5
    value = perturbation(rows, others, threshold)
    assert float(value.detach()) == pytest.approx(min(far, threshold))
    value.backward()
    assert bool(rows.grad.abs().max() > 0) == (far < threshold)


def some_logits(batch, classes, seed):
    logits = normal(batch, classes, seed=seed).float().requires_grad_(True)
    return logits, *torch.randint(classes, (2, batch), generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 999), st.booleans())
def test_keep_agrees_with_loops_and_stays_positive(batch, classes, seed, weighted):
    logits, *_ = some_logits(batch, classes, seed)
    suspect = 3 * normal(batch, classes, seed=seed + 1000).float()
    weights = normal(batch, seed=seed).abs().float() if weighted else None
    slow = reference.keep(logits, suspect, weights.tolist() if weighted else None)
    fast = keep(logits, suspect, weights)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(loss, logits)[0] for loss in (fast, slow)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-5)
    assert fast.item() > -1e-6
    assert keep(suspect + 2, suspect).item() == pytest.approx(0, abs=1e-5)  # a shift of all logits changes nothing


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 999))
def test_resist_agrees_with_loops(batch, classes, seed):
    logits, labels, targets = some_logits(batch, classes, seed)
    fast, slow = resist(logits, labels, targets), reference.resist(logits, labels.tolist(), targets.tolist())
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(loss, logits)[0] for loss in (fast, slow)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-5)


def test_for_images_of_the_target_itself_resist_is_cross_entropy():
    logits, labels = normal(3, 4).float(), torch.tensor([0, 2, 3])
    expected = torch.nn.functional.cross_entropy(logits, labels) + math.log(2)
    assert resist(logits, labels, labels).item() == pytest.approx(expected.item())

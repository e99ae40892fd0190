"""The feature-repelling loss and the logits against loops. (info_nce: test_fast_path.py)"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rvpt.losses import feature_repelling, zero_shot_logits


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

"""ROC curves: the fast counts agree with loops over all pairs, and intervals hold what they should."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpt.detection.roc import Area, auroc, false_alarms_at

SCORES = st.lists(st.integers(0, 6), min_size=1, max_size=20)


def scores(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(SCORES, SCORES)
def test_auroc_counts_pairs_in_order(clean: list[int], triggered: list[int]) -> None:
    wins = sum((t > c) + (t == c) / 2 for t in triggered for c in clean)
    found, other = auroc(scores(clean), scores(triggered)), auroc(scores(triggered), scores(clean))
    assert (found.numerator, found.n) == (wins, len(clean) * len(triggered))
    assert found.value + other.value == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(SCORES, SCORES, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_false_alarms_at_the_highest_threshold_that_detects_enough(
    clean: list[int], triggered: list[int], share: float
) -> None:
    enough = [h for h in triggered if sum(t >= h for t in triggered) >= share * len(triggered) - 1e-9]
    found = false_alarms_at(scores(clean), scores(triggered), share)
    assert (found.numerator, found.n) == (sum(c >= max(enough) for c in clean), len(clean))


def test_a_share_of_the_images_that_is_rounded_up_asks_for_no_more_of_them() -> None:
    same = scores(list(range(25)))
    assert false_alarms_at(same, same, 0.56).numerator == 14  # as floats, 0.56 * 25 is above 14


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_an_interval_holds_the_area_and_ends_where_it_no_longer_agrees(area: float, clean: int, triggered: int) -> None:
    pairs = clean * triggered
    one = Area(area * pairs, pairs, clean, triggered)
    low, high = one.interval()
    assert 0 <= low <= one.value + 1e-9
    assert one.value - 1e-9 <= high <= 1
    for end in (low, high):
        more = (clean + triggered) / 2 - 1
        variance = end * (1 - end) * (1 + more * ((1 - end) / (2 - end) + end / (1 + end))) / pairs
        assert abs(end - one.value) == pytest.approx(1.959964 * math.sqrt(max(variance, 0)), abs=1e-6)


def test_more_images_make_the_interval_smaller() -> None:
    widths = []
    for n in (10, 100, 1000):
        low, high = Area(0.9 * n * n, n * n, n, n).interval()
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_perfect_order_has_an_interval_that_depends_on_the_number_of_images() -> None:
    (few, one), (many, two) = (Area(n * n, n * n, n, n).interval() for n in (10, 1000))
    assert few < many < 1
    assert one == two == pytest.approx(1)


def test_the_interval_holds_the_truth_in_about_95_of_100_draws() -> None:
    generator, held = torch.Generator().manual_seed(0), 0
    truth = 0.5 * (1 + math.erf(1 / 2))  # of normal scores that are one apart
    for _ in range(400):
        clean, triggered = (torch.randn(40, generator=generator) + shift for shift in (0, 1))
        low, high = auroc(clean, triggered).interval()
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.98

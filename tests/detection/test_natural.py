"""What is natural: means and spreads of clean models, and what is above them."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm

from rvpt.detection.natural import PRIOR, Natural, excesses, finalists, first, natural_of

CLASSES = [f"class {index}" for index in range(8)]


def models(n: int, seed: int = 0) -> list[dict[str, float]]:
    """Rises of clean models with easy and hard classes."""
    generator = torch.Generator().manual_seed(seed)
    rises = 0.1 * torch.arange(8) + 0.02 * torch.randn(n, 8, generator=generator)
    return [dict(zip(CLASSES, row, strict=True)) for row in rises.tolist()]


def test_an_easy_class_is_not_above_what_is_natural() -> None:
    natural = Natural.of(models(10))
    (other,) = models(1, seed=1)
    assert max(other, key=other.__getitem__) == "class 7"
    assert all(abs(value) < 4 for value in natural.excess(other).values())


def test_a_hard_class_that_is_reached_is_above_it() -> None:
    (other,) = models(1, seed=1)
    excess = Natural.of(models(10)).excess({**other, "class 1": 0.5})
    assert max(excess, key=excess.__getitem__) == "class 1"
    assert excess["class 1"] > 10


def test_mean_and_spread_follow_the_formula() -> None:
    values = [{"owl": 1.0, "hen": 5.0}, {"owl": 2.0, "hen": 5.0}, {"owl": 6.0, "hen": 8.0}]
    natural = Natural.of(values)
    variances = {"owl": 7.0, "hen": 3.0}
    for name, variance in variances.items():
        pulled = (2 * variance + PRIOR * 5.0) / (2 + PRIOR)
        middle = sum(value[name] for value in values) / 3
        assert natural.by_class[name] == pytest.approx((middle, (4 / 3 * pulled) ** 0.5))


def test_with_many_models_the_excess_of_a_clean_model_is_normal() -> None:
    natural = Natural.of(models(400))
    values = sorted(v for other in models(50, seed=2) for v in natural.excess(other).values())
    assert values[round(0.9 * len(values))] == pytest.approx(norm.ppf(0.9), abs=0.2)


def test_only_finalists_count() -> None:
    forms = ("additive", "patch")
    runs = [{"short": short, "long": long} for short, long in zip(models(10), models(10, seed=3), strict=True)]
    known = natural_of(dict.fromkeys(forms, runs))
    (other,) = models(1, seed=1)
    long = {**other, "class 3": 2.0}
    shorts = {"additive": {**other, "class 2": 2.0}, "patch": {**other, "class 0": 1.5}}
    rises = {form: {"short": short, "long": long} for form, short in shorts.items()}
    assert finalists(shorts, known, 2) == ["class 2", "class 0"]
    found = excesses(rises, known, 2)
    assert {form: set(each) for form, each in found.items()} == {form: {"class 2", "class 0"} for form in forms}
    assert found["patch"] == known["patch"]["long"].excess({name: long[name] for name in ("class 2", "class 0")})


def test_without_knowledge_the_largest_rises_are_first() -> None:
    assert first({"owl": 0.1, "hen": 0.4, "cat": 0.3}, None, 2) == ["hen", "cat"]

"""A class is compared with the others of its model: by a slow twin, and by how often equal classes have an outlier."""

from __future__ import annotations

import math
from statistics import mean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import combine_pvalues, t

from rvpt.detection.outliers import class_p_values, outlying, smallest_of, studentized


def slowly(rises: list[float], place: int) -> float:
    others = [value for index, value in enumerate(rises) if index != place]
    return (rises[place] - mean(others)) / (stdev(others) * math.sqrt(1 + 1 / len(others)))


@given(st.integers(3, 30), st.integers(0, 99), st.floats(-5, 5), st.floats(1e-3, 10))
def test_studentized_is_that_of_a_loop_over_the_classes(classes: int, seed: int, middle: float, scale: float) -> None:
    rises = middle + scale * torch.randn(classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = [slowly(rises.tolist(), place) for place in range(classes)]
    assert studentized(rises).tolist() == pytest.approx(expected, rel=1e-6)


def test_p_values_are_those_of_fisher() -> None:
    rises = [torch.randn(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in range(3)]
    single = [t.sf(studentized(each).numpy(), 5) for each in rises]
    expected = [combine_pvalues([each[place] for each in single], method="fisher").pvalue for place in range(7)]
    assert class_p_values(rises).tolist() == pytest.approx(expected)


def test_without_an_outlier_small_p_values_are_as_rare_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(1_000, 3, 10, generator=generator)
    found = torch.tensor([smallest_of(class_p_values(list(each))) for each in drawn])
    for level in (0.05, 0.2):
        assert abs(float((found <= level).float().mean()) - level) < 4 * math.sqrt(level * (1 - level) / 1_000)


def test_a_class_must_stand_out_in_all_forms_together() -> None:
    one, other = (torch.randn(20, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    once, twice = [one.clone(), other.clone()], [one.clone(), other.clone()]
    for each in (once[0], *twice):
        each[4] = 3.0
    assert int(class_p_values(twice).argmin()) == 4
    assert smallest_of(class_p_values(twice)) < 0.01 < smallest_of(class_p_values(once))


def test_beside_a_reference_a_class_must_stand_out_more_than_in_it() -> None:
    reference = [torch.randn(20, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    rises = [each + 0.3 * torch.randn(20, generator=torch.Generator().manual_seed(2)) for each in reference]
    for suspected, trusted in zip(rises, reference, strict=True):
        suspected[4] = trusted[4] = 5.0  # easy to reach in both
        suspected[7] = trusted[7] + 4.0
    more = class_p_values([each - other for each, other in zip(rises, reference, strict=True)])
    assert torch.equal(outlying(rises), class_p_values(rises))
    assert outlying(rises, reference).tolist() == torch.maximum(class_p_values(rises), more).tolist()
    assert int(outlying(rises, reference).argmin()) == 7


@pytest.mark.parametrize("rises", [[0.1] * 6, [0.0, 0.0, 0.0, 1.0]], ids=["no spread", "one class apart"])
def test_equal_classes_have_finite_p_values(rises: list[float]) -> None:
    found = class_p_values([torch.tensor(rises)] * 2)
    assert ((found >= 0) & (found <= 1)).all()
    assert 0 <= smallest_of(found) <= 1

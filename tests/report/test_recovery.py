"""The recovery layout: accuracy under triggers beside that of the clean model."""

from __future__ import annotations

import pytest

from results import cells, joined, rows_of
from rvpt.errors import RvptError
from rvpt.report import recovery
from rvpt.rows import BEFORE


def test_a_cell_has_pa_and_its_difference_from_the_clean_models() -> None:
    rows = joined(
        rows_of(0.8, seed=0, defense=BEFORE), rows_of(0.9, seed=1, defense=BEFORE), rows_of(0.1, defense="none"),
        rows_of(0.5, attack="sig", defense=BEFORE), rows_of(0.2, attack="sig", defense="none"),
        rows_of(0.6, seed=0), rows_of(0.65, seed=1), rows_of(0.55, attack="sig"),
    )  # fmt: skip
    assert cells(recovery(rows)) == [
        ["model", "attack", BEFORE, "none", "rvpt"],
        ["m", "badnet", "85.0", "10.0 (-75.0)", "62.5 (-22.5)"],
        ["m", "sig", "50.0", "20.0 (-30.0)", "55.0 (+5.0)"],
        ["mean of 2", "", "67.5", "15.0 (-52.5)", "58.8 (-8.8)"],
    ]


def test_a_missing_defense_is_a_dash_and_not_in_the_mean() -> None:
    rows = joined(rows_of(0.8, defense=BEFORE), rows_of(0.5), rows_of(0.6, attack="sig", defense=BEFORE))
    assert cells(recovery(rows))[1:] == [["m", "badnet", "80.0", "50.0 (-30.0)"], ["m", "sig", "60.0", "–"]]


def test_it_needs_the_clean_model() -> None:
    with pytest.raises(RvptError, match="no row has the PA of a model before the attack"):
        recovery(rows_of(0.5))

"""The layout `matrix`: attacks down, defenses across, means over the attacks that all have met."""

from __future__ import annotations

from typing import Any

import pytest

from results import cells, joined, rows_of
from rvpt.errors import RvptError
from rvpt.report import matrix


def table(*runs: list[dict[str, Any]]) -> list[list[str]]:
    return cells(matrix(joined(*runs)))


def test_attacks_are_down_and_defenses_across() -> None:
    runs = rows_of(0.4), rows_of(0.1, attack="blended"), rows_of(0.8, defense="none"), rows_of(0.2, seed=1)
    assert table(*runs) == [
        ["model", "attack", "none", "rvpt"],
        ["m", "badnet", "90.0, 80.0", "90.0, 30.0 ± 14.1"],
        ["m", "blended", "–", "90.0, 10.0"],
    ]


def test_an_unknown_defense_has_a_column() -> None:
    assert table(rows_of(0.1, defense="mine"), rows_of(0.2))[0] == ["model", "attack", "rvpt", "mine"]


def test_means_are_over_attacks_that_every_defense_met() -> None:
    runs = [rows_of(rate, defense=name, attack=attack) for name, attack, rate in (
        ("none", "a", 0.8), ("none", "b", 0.6), ("none", "c", 0.0), ("rvpt", "a", 0.1), ("rvpt", "b", 0.3),
    )]  # fmt: skip
    assert table(*runs)[-1] == ["mean of 2", "", "90.0, 70.0", "90.0, 20.0"]


def test_a_column_is_of_one_setting_for_all_models() -> None:
    runs = [rows_of(0.2, model=f"m{n}", spec={"alpha": 2.0 if n == 3 else 0.5}) for n in range(4)]
    assert table(*runs)[0] == ["model", "attack", "rvpt", "rvpt, alpha=2.0"]


def test_a_run_without_ca_or_asr_is_left_out() -> None:
    other = rows_of(0.1, defense="probe")
    expected = [["model", "attack", "rvpt"], ["m", "badnet", "90.0, 20.0"]]
    assert table(rows_of(0.2), other[1:]) == table(rows_of(0.2), other[:2]) == expected
    with pytest.raises(RvptError, match="no run has both CA and ASR"):
        matrix(other[1:])

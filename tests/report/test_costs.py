"""The layout `costs`: each cleaned model counts once."""

from __future__ import annotations

from typing import Any

import pytest

from results import cells, joined, rows_of
from rvpt.errors import RvptError
from rvpt.report import costs


def paid(seconds: float, digest: str, defense: str = "rvpt", **facts: Any) -> list[dict[str, Any]]:
    """The rows of a cleaned model, and what it cost."""
    cost = {"trained_parameters": 3000, "clean_seconds": seconds, "hashes": {"model": digest}}
    return rows_of(0.1, defense=defense, **cost, **facts)


def test_a_cleaned_model_counts_once_however_often_it_was_measured() -> None:
    again = [{**row, "data": "e"} for row in paid(10, "a")]
    modified = paid(10, "a2", test={"modification": "fp16"})
    runs = paid(10, "a"), again, modified, paid(20, "b", seed=1), paid(5, "c", "probe"), paid(0, "d", "none")
    assert cells(costs(joined(*runs))) == [
        ["defense", "trained parameters", "models", "seconds"],
        ["probe", "3,000", "1", "5"],
        ["rvpt", "3,000", "2", "15 ± 7"],
    ]


def test_settings_are_apart() -> None:
    runs = [paid(10 * n, str(n), model=f"m{n}", spec={"epochs": 15 if n == 3 else 40}) for n in range(4)]
    assert cells(costs(joined(*runs)))[1:] == [
        ["rvpt", "3,000", "3", "10 ± 10"], ["rvpt, epochs=15", "3,000", "1", "30"],
    ]  # fmt: skip


def test_rows_without_a_cleaned_model_are_refused() -> None:
    with pytest.raises(RvptError, match="no row is of a cleaned model"):
        costs(joined(paid(0, "d", "none"), rows_of(0.1, defense="before the attack")))

"""How the refusal to resume a run says what is different."""

from __future__ import annotations

from typing import Any

import pytest

from rvpt.training.differences import differences


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"spec": {"epochs": 40}}, {"spec": {"epochs": 6}}, "epochs=6 now, 40 before"),
        ({"data": {"shift": "blur"}}, {"data": {}}, "shift='blur' before, not given now"),
        ({"without": []}, {"without": ["sun"]}, "without=['sun'] now, not given before"),
        ({"data": ["a", "b"]}, {"data": ["c"]}, "data=['c'] now, a, b before"),
        (
            {"spec": {"seed": 0}, "data": {"seed": 0}},
            {"spec": {"seed": 1}, "data": {"seed": 1}},
            "seed=1 now, 0 before",
        ),
        ({"model": "3f", "classes": ["a"]}, {"model": "5c", "classes": ["b"]}, "other classes; another model"),
        ({"a": 1}, {"a": 1}, "unknown"),
    ],
)
def test_settings_are_told_with_both_values(before: Any, now: Any, told: str) -> None:
    assert differences(before, now) == told


def test_many_differences_are_cut_off() -> None:
    told = differences({}, dict.fromkeys("gfedcba", 1)).split("; ")
    assert told == [*(f"{name}=1 now, not given before" for name in "abcdef"), "..."]

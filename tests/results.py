"""Rows of runs, for tests of reports."""

from __future__ import annotations

from typing import Any


def rows_of(
    rate: float, seed: int = 0, defense: str = "rvpt", attack: str = "badnet", **facts: Any
) -> list[dict[str, Any]]:
    """The rows of one run: a CA of 90%, and PA and ASR of `rate` under one attack."""
    shared = {"model": "m", "data": "d", "defense": defense, "seed": seed, **facts}
    clean = [{**shared, "attack": "none", "metric": "CA", "rate": 0.9}]
    return clean + [{**shared, "attack": attack, "metric": name, "rate": rate} for name in ("PA", "ASR")]


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table, its heading first."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def joined(*runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of several runs."""
    return [row for run in runs for row in run]

"""The cost of defenses: trained parameters and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from rvpt.data.text import cell
from rvpt.errors import RvptError
from rvpt.report.groups import by_run, place, which_model
from rvpt.rows import UNCLEANED, Row

# Set to the same value in all rows, because the cost does not depend on how a model was measured.
MEASURED: dict[str, Any] = {"attack": "any", "test": {}, "template": None}


class CostLine(NamedTuple):
    """What one defense costs: its trained parameters, and the seconds of one cleaning, over several models."""

    title: str
    trained: int
    models: int
    seconds: float
    spread: float | None


def costs(rows: Sequence[Row]) -> str:
    """A table of defenses: trained parameters, and mean ± standard deviation of the seconds of one cleaning.

    Raises:
        RvptError: no row is of a cleaned model.
    """
    table = ["| defense | trained parameters | models | seconds |", "|---|---:|---:|---:|"]
    for line in cost_lines(rows):
        spread = "" if line.spread is None else f" ± {line.spread:.0f}"
        table.append(f"| {cell(line.title)} | {line.trained:,} | {line.models} | {line.seconds:.0f}{spread} |")
    return "\n".join(table) + "\n"


def cost_lines(rows: Sequence[Row]) -> list[CostLine]:
    """The costs of each defense, in report order.

    Each cleaned model counts once, however often it was measured, and not again after a modification. Defenses with
    different settings have separate lines.

    Raises:
        RvptError: no row is of a cleaned model.
    """
    cleanings = {
        (row["defense"], *which_model(row)): {**row, **MEASURED}
        for row in rows
        if row["defense"] not in UNCLEANED and "modification" not in row.get("test", {})
    }
    if not cleanings:
        raise RvptError("no row is of a cleaned model: there are no costs to report")
    lines: dict[tuple[int, str, int], list[float]] = {}
    for run, found in by_run(list(cleanings.values())).items():
        for row in found.hit:
            line = place(run.defense), run.title, int(row.get("trained_parameters") or 0)
            lines.setdefault(line, []).append(float(row.get("clean_seconds") or 0.0))
    return [
        CostLine(title, trained, len(seconds), mean(seconds), stdev(seconds) if len(seconds) > 1 else None)
        for (_, title, trained), seconds in sorted(lines.items())
    ]

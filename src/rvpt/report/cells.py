"""CA and ASR of every defense against every attack, for the matrix layout and the plot."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from rvpt.report.groups import Found, by_run, percents, place
from rvpt.rows import Row


class Cell(NamedTuple):
    """Rates in percent, means over seeds; with several seeds also the standard deviation of ASR."""

    ca: float
    asr: float
    spread: float | None = None


class Cells(NamedTuple):
    """Titles of defenses in report order; for each model and attack the cells of the defenses measured on it."""

    titles: list[str]
    lines: dict[tuple[str, str], dict[str, Cell]]

    @property
    def met_by_all(self) -> list[dict[str, Cell]]:
        """The lines of the attacks that every defense was measured on."""
        return [line for line in self.lines.values() if len(line) == len(self.titles)]

    def means(self) -> dict[str, Cell]:
        """Each defense's means over the attacks that every defense was measured on; empty if there are none."""
        if not self.met_by_all:
            return {}
        columns = {title: [line[title] for line in self.met_by_all] for title in self.titles}
        return {
            title: Cell(mean(c.ca for c in column), mean(c.asr for c in column)) for title, column in columns.items()
        }


def cells(rows: Sequence[Row]) -> Cells:
    """The cells of one data set's rows; runs without CA or ASR are left out."""
    places: dict[str, int] = {}
    lines: dict[tuple[str, str], dict[str, Cell]] = {}
    for run, found in by_run(rows).items():
        if cell := _cell(found):
            lines.setdefault((run.model, run.attack), {})[run.title] = cell
            places[run.title] = place(run.defense)
    return Cells(sorted(places, key=lambda title: places[title]), lines)


def _cell(found: Found) -> Cell | None:
    accuracies, successes = percents(found.clean, "CA"), percents(found.hit, "ASR")
    if not accuracies or not successes:
        return None
    return Cell(mean(accuracies), mean(successes), stdev(successes) if len(successes) > 1 else None)

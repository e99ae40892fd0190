"""CA and ASR of every defense against every attack: what the matrix prints and the image draws."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from rvpt.report.groups import Found, by_run, percents, place
from rvpt.rows import Row


class Cell(NamedTuple):
    """Rates in percent, means over seeds, and the standard deviation of ASR where there are several."""

    ca: float
    asr: float
    spread: float | None = None


class Cells(NamedTuple):
    """Defenses by title in the order of the story; for each model and attack the cells of those that have met it."""

    titles: list[str]
    lines: dict[tuple[str, str], dict[str, Cell]]

    @property
    def met_by_all(self) -> list[dict[str, Cell]]:
        """The lines of the attacks that every defense has met."""
        return [line for line in self.lines.values() if len(line) == len(self.titles)]

    def means(self) -> dict[str, Cell]:
        """Each defense's means over the attacks that every defense has met; none, where there are no such attacks."""
        if not self.met_by_all:
            return {}
        columns = {title: [line[title] for line in self.met_by_all] for title in self.titles}
        return {
            title: Cell(mean(c.ca for c in column), mean(c.asr for c in column)) for title, column in columns.items()
        }


def cells(rows: Sequence[Row]) -> Cells:
    """The cells of one data set's rows; runs that lack CA or ASR have none."""
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

"""Tables of a page: cells with the number that they are sorted by and what their tooltip says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rvpt.report.costs import cost_lines
from rvpt.report.figures.cost import Cost, defense_costs
from rvpt.report.figures.effect import mark_of
from rvpt.report.groups import by_data, by_run, metrics
from rvpt.report.names import spelled
from rvpt.rows import CLEAN, UNCLEANED, Row


class Cell(NamedTuple):
    """A text, the number that it is sorted by if it is one, and its tooltip."""

    text: str
    value: float | None = None
    tip: str = ""


NOTHING = Cell("–")
"""Where nothing was measured."""


class Table(NamedTuple):
    """A caption, headings, and lines of cells; columns from `numbers` on hold numbers."""

    caption: str
    headings: Sequence[str]
    numbers: int
    lines: Sequence[Sequence[Cell]]


def run_tables(rows: Sequence[Row]) -> list[Table]:
    """For each data set, a line for every model, attack and defense with all that was measured."""
    return [_runs(data, members) for data, members in by_data(rows).items()]


def _runs(data: str, rows: Sequence[Row]) -> Table:
    clean_metrics, hit_metrics = metrics(rows)
    runs = by_run(rows)
    models = list(dict.fromkeys(run.model for run in runs))
    lines = []
    for run, (clean, hit) in runs.items():
        seeds = len({row["seed"] for row in hit})
        cells = [Cell(run.model)] if len(models) > 1 else []
        cells += [Cell(run.attack), Cell(spelled(run.title)), Cell(str(seeds), seeds)]
        cells += [_rate(clean, metric, run.title, CLEAN) for metric in clean_metrics]
        cells += [_rate(hit, metric, run.title, run.attack) for metric in hit_metrics]
        lines.append(cells)
    named = ["model"] if len(models) > 1 else []
    headings = [*named, "attack", "defense", "seeds", *clean_metrics, *hit_metrics]
    which = "" if len(models) > 1 else f"{models[0]}: "
    return Table(f"{which}rates on {data}, in %", headings, len(named) + 2, lines)


def _rate(rows: Sequence[Row], metric: str, title: str, attack: str) -> Cell:
    mark = mark_of(rows, metric, title, attack)
    if mark is None:
        return NOTHING
    seeds = sum(row["metric"] == metric and row["rate"] is not None for row in rows)
    spread = f" ± {mark.high - mark.rate:.1f}" if seeds > 1 else ""
    return Cell(f"{mark.rate:.1f}{spread}", mark.rate, mark.tip)


def cost_table(data: str, rows: Sequence[Row]) -> Table | None:
    """What each defense cost on one data set, None if nothing was cleaned; with means over the attacks of all.

    Columns in which nothing was measured are left out.
    """
    if all(row["defense"] in UNCLEANED for row in rows):
        return None
    scores = {cost.title: cost for cost in defense_costs(rows)}
    lines = []
    for line in cost_lines(rows):
        cost, tip = scores.get(line.title), f"mean of {line.models} cleanings" if line.models > 1 else "one cleaning"
        lines.append([
            Cell(spelled(line.title)), *(_score(cost, name) for name in ("asr", "ca")),
            Cell(f"{line.seconds:.0f}", line.seconds, tip), Cell(f"{line.trained:,}", line.trained), _memory(cost),
        ])  # fmt: skip
    headings = ["defense", "mean ASR", "mean CA", "seconds", "trained parameters", "peak memory of measuring"]
    columns = [column for column in zip(headings, *lines, strict=True) if {*column[1:]} != {NOTHING}]
    headings, *lines = map(list, zip(*columns, strict=True))
    return Table(f"Score and cost on {data}", headings, 1, lines)


def _score(cost: Cost | None, name: str) -> Cell:
    return NOTHING if cost is None else Cell(f"{getattr(cost, name):.1f}", getattr(cost, name))


def _memory(cost: Cost | None) -> Cell:
    if cost is None or not cost.memory:
        return NOTHING
    return Cell(f"{cost.memory / 2**20:,.0f} MiB", cost.memory)

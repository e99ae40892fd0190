"""Attacks down, defences across: who is best against what, at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from rvpt.errors import RvptError
from rvpt.report.groups import Found, Row, by_data, by_run, percents, place

Cell = tuple[float, float]  # CA and ASR, in percent


def matrix(rows: Sequence[Row]) -> str:
    """One table for each data set, in each cell CA and ASR in %, means over the seeds.

    The last line is the mean over the attacks that every defence has met.

    Raises:
        RvptError: no run has both.
    """
    tables = {data: _table(members) for data, members in by_data(rows).items()}
    if not any(tables.values()):
        raise RvptError("no run has both CA and ASR: rvpt report --layout runs shows other metrics")
    return "\n".join(f"### {data}\n\n{table}" for data, table in tables.items() if table)


def _table(rows: Sequence[Row]) -> str:
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    columns: dict[str, int] = {}
    for run, found in by_run(rows).items():
        if cell := _cell(found):
            cells.setdefault((run.model, run.attack), {})[run.title] = cell
            columns[run.title] = place(run.defence)
    if not cells:
        return ""
    titles = sorted(columns, key=lambda title: columns[title])
    lines = [f"| model | attack | {' | '.join(titles)} |", "|---|---|" + "---:|" * len(titles)]
    lines += [_line(model, attack, titles, line) for (model, attack), line in cells.items()]
    whole = [line for line in cells.values() if len(line) == len(titles)]
    if len(whole) > 1:
        means = {
            title: (mean(line[title][0] for line in whole), mean(line[title][1] for line in whole)) for title in titles
        }
        lines.append(_line(f"mean of {len(whole)}", "", titles, means))
    return "\n".join(lines) + "\n"


def _cell(found: Found) -> Cell | None:
    """CA and ASR of a run; None where one was not measured."""
    accuracies, successes = percents(found.clean, "CA"), percents(found.hit, "ASR")
    return (mean(accuracies), mean(successes)) if accuracies and successes else None


def _line(model: str, attack: str, titles: Sequence[str], cells: dict[str, Cell]) -> str:
    texts = [f"{cells[title][0]:.1f}, {cells[title][1]:.1f}" if title in cells else "–" for title in titles]
    return f"| {model} | {attack} | {' | '.join(texts)} |"

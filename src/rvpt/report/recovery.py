"""Accuracy under triggers beside that of the clean model: does a defense bring it back?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from rvpt.data.text import cell
from rvpt.errors import RvptError
from rvpt.report.groups import by_data, by_run, percents, place
from rvpt.report.markdown import across
from rvpt.rows import BEFORE, Row


def recovery(rows: Sequence[Row]) -> str:
    """One table per data set: attacks down, defenses across. A cell is PA in %, the mean over the seeds, and in
    parentheses its difference from the clean model's PA under the same trigger.

    The last line is the mean over the attacks that every defense was measured on. Source: the claim of the paper's
    table 3, that PA returns to that of the clean model.

    Raises:
        RvptError: no attack has the PA of the clean model.
    """
    tables = {data: table for data, members in by_data(rows).items() if (table := _table(members))}
    if not tables:
        raise RvptError("no row has the PA of a model before the attack: pass layout=runs for other metrics")
    return "\n".join(f"### {cell(data)}\n\n{table}" for data, table in tables.items())


def _table(rows: Sequence[Row]) -> str:
    lines: dict[tuple[str, str], dict[str, float]] = {}
    places: dict[str, int] = {}
    for run, found in by_run(rows).items():
        if rates := percents(found.hit, "PA"):
            lines.setdefault((run.model, run.attack), {})[run.title] = mean(rates)
            places[run.title] = place(run.defense)
    lines = {name: line for name, line in lines.items() if BEFORE in line}
    if not lines:
        return ""
    titles = sorted(places, key=lambda title: places[title])
    whole = [line for line in lines.values() if len(line) == len(titles)]
    if len(whole) > 1:
        lines[f"mean of {len(whole)}", ""] = {title: mean(line[title] for line in whole) for title in titles}
    texts = {attack: {title: _text(title, line) for title in line} for attack, line in lines.items()}
    return across(titles, texts)


def _text(title: str, line: dict[str, float]) -> str:
    return f"{line[title]:.1f}" + ("" if title == BEFORE else f" ({line[title] - line[BEFORE]:+.1f})")

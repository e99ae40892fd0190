"""Markdown tables of rows: mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from rvpt.data.text import cell
from rvpt.errors import RvptError
from rvpt.report.groups import by_data, by_run, metrics, percents
from rvpt.report.paper import beside, paper_of
from rvpt.rows import Row


def results(rows: Sequence[Row]) -> str:
    """One table for each data set: a line for every model, attack and defense, rates in % over the seeds."""
    return "\n".join(f"### {cell(data)}\n\n{_table(data, members)}" for data, members in by_data(rows).items())


def _table(data: str, rows: Sequence[Row]) -> str:
    clean_metrics, hit_metrics = metrics(rows)
    columns = [*clean_metrics, *hit_metrics, *(["paper: CA, ASR"] if paper_of(data) else [])]
    lines = [
        f"| model | attack | defense | seeds | {' | '.join(map(cell, columns))} |",
        "|---|---|---|" + "---:|" * (len(columns) + 1),
    ]
    for run, (clean, hit) in by_run(rows).items():
        cells = [cell(run.model), cell(run.attack), cell(run.title), str(len({row["seed"] for row in hit}))]
        cells += [
            *(spread(clean, metric) for metric in clean_metrics),
            *(spread(hit, metric) for metric in hit_metrics),
        ]
        if paper_of(data):
            elsewhere = {row.get("cleaned_on") for row in hit} - {None, data}
            cells.append("" if elsewhere else beside(data, run.attack, run.defense))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def across(titles: Sequence[str], lines: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    """A table with attacks, by model and name, down and defenses across; – where nothing was measured."""
    table = [f"| model | attack | {' | '.join(map(cell, titles))} |", "|---|---|" + "---:|" * len(titles)]
    for (model, attack), texts in lines.items():
        shown = " | ".join(texts.get(title, "–") for title in titles)
        table.append(f"| {cell(model)} | {cell(attack)} | {shown} |")
    return "\n".join(table) + "\n"


def spread(rows: Sequence[Row], metric: str) -> str:
    """Mean ± standard deviation over the rows of one metric, in percent."""
    rates = percents(rows, metric)
    if not rates:
        return "–"
    return f"{mean(rates):.1f} ± {stdev(rates):.1f}" if len(rates) > 1 else f"{rates[0]:.1f}"


def marks(section: str = "") -> tuple[str, str]:
    """The comments before and after the tables of a page, or of one of its sections."""
    name = f" {section}" if section else ""
    return f"<!-- rows{name} -->", f"<!-- /rows{name} -->"


def between_marks(page: str, tables: str, section: str = "") -> str:
    """The page with the part between its marks replaced by `tables`; without marks they are appended.

    Raises:
        RvptError: a mark is missing, repeated, or in the wrong order.
    """
    start, end = marks(section)
    if start not in page and end not in page:
        page = f"{page.rstrip()}\n\n{start}\n{end}\n".lstrip()
    before, *others = page.split(start)
    if len(others) != 1 or page.count(end) != 1 or end not in others[0]:
        raise RvptError(f"the page needs {start} once and {end} once after it, or neither: fix its marks")
    return f"{before}{start}\n{tables}{end}{others[0].split(end)[1]}"

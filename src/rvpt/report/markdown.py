"""Markdown tables of rows: mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]
METRICS = ("PA", "ASR", "ASR_with_target")
TITLES = {"none": "no defence", "vpt": "VPT", "rvpt": "RVPT"}
DEFENCES = ("before the attack", "none", "vpt", "rvpt")


def results(rows: Sequence[Row]) -> str:
    """One table for each data set: a line for every model, attack and defence, rates in % over the seeds."""
    parts = []
    for data in sorted({str(row["data"]) for row in rows}):
        parts.append(f"### {data}\n\n{_table([row for row in rows if row['data'] == data])}")
    return "\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| model | attack | defence | seeds | CA | " + " | ".join(METRICS) + " |",
        "|---|---|---|" + "---:|" * 5,
    ]
    keys = {(str(r["model"]), str(r["attack"]), str(r["defence"])) for r in rows if r["attack"] != "none"}
    for model, attack, defence in sorted(keys, key=_order):
        mine = [r for r in rows if r["model"] == model and r["defence"] == defence]
        clean, hit = ([r for r in mine if r["attack"] == name] for name in ("none", attack))
        seeds = len({r["seed"] for r in hit})
        cells = [spread(clean, "CA"), *(spread(hit, metric) for metric in METRICS)]
        lines.append(f"| {model} | {attack} | {defence} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _order(key: tuple[str, str, str]) -> tuple[str, str, int]:
    model, attack, defence = key
    return model, attack, DEFENCES.index(defence) if defence in DEFENCES else len(DEFENCES)


def spread(rows: Sequence[Row], metric: str) -> str:
    """Mean ± standard deviation over the rows of one metric, in percent."""
    rates = [100 * r["rate"] for r in rows if r["metric"] == metric and r["rate"] is not None]
    if not rates:
        return "–"
    return f"{mean(rates):.1f} ± {stdev(rates):.1f}" if len(rates) > 1 else f"{rates[0]:.1f}"


START, END = "<!-- rows -->", "<!-- /rows -->"


def between_marks(page: str, tables: str) -> str:
    """The page with its part between the marks replaced by `tables`; without marks they go to its end."""
    if START not in page or END not in page:
        page = f"{page.rstrip()}\n\n{START}\n{END}\n".lstrip()
    before, rest = page.split(START, 1)
    return f"{before}{START}\n{tables}{END}{rest.split(END, 1)[1]}"

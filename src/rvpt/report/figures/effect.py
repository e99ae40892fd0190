"""Accuracy and attack success of every defense, attack by attack, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from rvpt.report.groups import by_run, place
from rvpt.report.names import spelled
from rvpt.report.style import INK, legend_within, looks, new_figure, tip
from rvpt.rows import CLEAN, Row

LISTED = 6  # measurements in a tooltip
WIDTH = 7.2  # inches
ACCURACY = "accuracy on clean images"


class Mark(NamedTuple):
    """One rate with its interval, in percent, and what a tooltip says about it."""

    rate: float
    low: float
    high: float
    tip: str


def marks(rows: Sequence[Row]) -> dict[str, dict[str, Mark]]:
    """For accuracy and each attack, the marks of the defenses: one seed with its interval, or mean ± deviation.

    An attack that several models have is named with the model. Accuracy is over all models.
    """
    runs = by_run(rows)
    models = {run.attack: {other.model for other in runs if other.attack == run.attack} for run in runs}
    titles = dict.fromkeys(run.title for run in sorted(runs, key=lambda run: place(run.defense)))
    accuracy: dict[str, list[Row]] = {title: [] for title in titles}
    found: dict[str, dict[str, Mark]] = {ACCURACY: {}}
    for run, (clean, hit) in runs.items():
        accuracy[run.title] += [row for row in clean if row not in accuracy[run.title]]
        line = run.attack if len(models[run.attack]) == 1 else f"{run.attack}, {run.model}"
        if run.attack != CLEAN and (mark := mark_of(hit, "ASR", run.title, run.attack)):
            found.setdefault(line, {})[run.title] = mark
    found[ACCURACY] = {title: mark for title, part in accuracy.items() if (mark := mark_of(part, "CA", title))}
    return {line: {title: of[title] for title in titles if title in of} for line, of in found.items() if of}


def mark_of(rows: Sequence[Row], metric: str, title: str, attack: str = CLEAN) -> Mark | None:
    """The mark of a metric in the rows of one run; None if it was not measured."""
    rates = [row for row in rows if row["metric"] == metric and row["rate"] is not None]
    if not rates:
        return None
    middle = 100 * mean(row["rate"] for row in rates)
    about = f"{spelled(title)}, {metric}" + (f" under {attack}" if attack != CLEAN else "")
    if len(rates) > 1:
        spread = 100 * stdev(row["rate"] for row in rates)
        seeds = ", ".join(f"seed {row['seed']}: {100 * row['rate']:.1f}%" for row in rates[:LISTED])
        seeds += f" and {len(rates) - LISTED} more" if len(rates) > LISTED else ""
        return Mark(
            middle, middle - spread, middle + spread, f"{about}: {middle:.1f} ± {spread:.1f}%; {seeds}; {size(rates)}"
        )
    (row,) = rates
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:
        return Mark(middle, middle, middle, f"{about}: {middle:.1f}%; seed {row['seed']}; {size(rates)}")
    interval = f"95% interval {100 * low:.1f} to {100 * high:.1f}%"
    return Mark(middle, 100 * low, 100 * high, f"{about}: {middle:.1f}%; {interval}; seed {row['seed']}; {size(rates)}")


def size(rows: Sequence[Row]) -> str:
    """How many images rows were measured on."""
    numbers = sorted({int(row["n"]) for row in rows if row.get("n")})
    return f"n = {' to '.join(f'{n:,}' for n in sorted({numbers[0], numbers[-1]}))}" if numbers else "n unknown"


def draw(found: dict[str, dict[str, Mark]], tips: dict[str, str]) -> Any:
    """A line for accuracy and one for each attack, with a mark for each defense at its rate; whiskers are intervals."""
    titles = list(dict.fromkeys(title for line in found.values() for title in line))
    styles = looks(titles)
    spacing = max(1.0, 0.16 * len(titles))
    legend = legend_within(WIDTH, [spelled(title) for title in titles])
    figure = new_figure(WIDTH, 0.7 + legend.height + 0.42 * spacing * len(found))
    axes = figure.subplots()
    for number, line in enumerate(found.values()):
        for title, mark in line.items():
            height = -spacing * number - (titles.index(title) - (len(titles) - 1) / 2) * 0.13
            axes.plot([mark.low, mark.high], [height] * 2, color=styles[title]["color"], linewidth=1.4, alpha=0.6)
            (drawn,) = axes.plot([mark.rate], [height], linestyle="", markersize=6.5, **styles[title])
            tip(drawn, mark.tip, tips)
    axes.set_yticks([-spacing * number for number in range(len(found))], [_label(line) for line in found])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-spacing * (len(found) - 0.5), spacing * 0.5)
    axes.set_xlabel("%")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    handles = [axes.plot([], [], linestyle="", markersize=6.5, **styles[title])[0] for title in titles]
    figure.legend(
        handles, legend.labels, loc="outside upper left", ncols=legend.columns, columnspacing=1.4, handletextpad=0.3
    )
    return figure


def describe(found: dict[str, dict[str, Mark]]) -> str:
    """The figure in words."""
    lines = [
        f"{_label(line)}: " + ", ".join(f"{spelled(title)} {mark.rate:.1f}%" for title, mark in of.items())
        for line, of in found.items()
    ]
    return "Dot plot of rates. " + "; ".join(lines) + "."


def _label(line: str) -> str:
    return line if line == ACCURACY else f"attack success, {line}"

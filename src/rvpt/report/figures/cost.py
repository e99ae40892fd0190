"""Attack success against what cleaning cost: seconds and trained parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rvpt.report.cells import cells
from rvpt.report.costs import cost_lines
from rvpt.report.names import spelled
from rvpt.report.style import legend_within, looks, new_figure, tip
from rvpt.rows import UNCLEANED, Row

WIDTH = 7.2  # inches


class Cost(NamedTuple):
    """One defense: mean ASR and CA in percent over the attacks of all defenses, and what it cost."""

    title: str
    asr: float
    ca: float
    seconds: float
    trained: int
    memory: int | None


def defense_costs(rows: Sequence[Row]) -> list[Cost]:
    """The defenses of one data set with a score and a cost; empty if no attack was measured with all of them."""
    means = cells(rows).means()
    if all(row["defense"] in UNCLEANED for row in rows):
        return []
    memory: dict[str, int] = {}
    for row in rows:
        name = str(row["defense"])
        memory[name] = max(memory.get(name, 0), int(row.get("peak_memory_bytes") or 0))
    return [
        Cost(line.title, means[line.title].asr, means[line.title].ca, line.seconds, line.trained,
             memory[line.title.partition(",")[0]] or None)
        for line in cost_lines(rows) if line.title in means
    ]  # fmt: skip


def draw(found: Sequence[Cost], tips: dict[str, str]) -> Any:
    """ASR against seconds and against trained parameters, both on a logarithmic axis."""
    from matplotlib.ticker import LogFormatter

    legend = legend_within(WIDTH, [spelled(cost.title) for cost in found])
    figure = new_figure(WIDTH, 2.7 + legend.height)
    axes = figure.subplots(1, 2, sharey=True)
    styles = looks([cost.title for cost in found])
    for panel, name in zip(axes, ("seconds", "trained"), strict=True):
        for cost in found:
            (mark,) = panel.plot([getattr(cost, name)], [cost.asr], linestyle="", markersize=8, **styles[cost.title])
            tip(mark, told(cost), tips)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.xaxis.set_minor_formatter(LogFormatter())  # the default one writes formulas
        panel.set_ylim(-3, 103)
        panel.margins(x=0.15)
    axes[0].set_ylabel("mean ASR (%)")
    axes[0].set_xlabel("seconds of cleaning")
    axes[1].set_xlabel("trained parameters")
    figure.legend(axes[0].get_lines(), legend.labels, loc="outside upper left", ncols=legend.columns)
    return figure


def told(cost: Cost) -> str:
    """One defense in words."""
    return (
        f"{spelled(cost.title)}: ASR {cost.asr:.1f}%, accuracy {cost.ca:.1f}%, {cost.seconds:.0f} seconds, "
        f"{cost.trained:,} trained parameters"
    )


def describe(found: Sequence[Cost]) -> str:
    """The figure in words."""
    return f"Scatter plots of mean attack success against seconds and parameters. {'; '.join(map(told, found))}."

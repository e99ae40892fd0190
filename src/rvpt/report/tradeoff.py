"""Plot of accuracy against attack success, a color for each defense; the best are at the lower right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from rvpt.errors import RvptError
from rvpt.report.cells import Cells, cells
from rvpt.report.groups import by_data
from rvpt.report.names import spelled
from rvpt.report.style import INK, LETTER, MARKERS, looks, new_figure, styled
from rvpt.rows import Row

LETTERS = 48  # in a line of the legend


def draw_tradeoff(rows: Sequence[Row], path: Path) -> None:
    """One panel for each data set: a small mark for each defense and attack, a large one at each defense's mean.

    Small marks are means over seeds; large marks also over the attacks that every defense was measured on.

    Raises:
        RvptError: no run has both CA and ASR.
    """
    panels = {data: found for data, members in by_data(rows).items() if (found := cells(members)).lines}
    if not panels:
        raise RvptError("no run has both CA and ASR, which the plot shows")
    with styled():
        tradeoff_figure(panels).savefig(path, format="png")


def tradeoff_figure(panels: Mapping[str, Cells]) -> Any:
    """The matplotlib figure, with one panel for each data set."""
    lines = [_label(title).split("\n") for found in panels.values() for title in found.titles]
    width = 5.5 + LETTER * max(len(line) for label in lines for line in label)
    height = max(4.2, 0.21 * sum(map(len, lines)) / len(panels))
    figure = new_figure(width, height * len(panels))
    for axes, (data, found) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        draw_panel(axes, data, found)
    return figure


def draw_panel(axes: Any, data: str, found: Cells) -> None:
    """The marks of one data set."""
    from matplotlib import colormaps

    means, own, drawn = found.means(), looks(found.titles), []
    for number, title in enumerate(found.titles):
        look: dict[str, Any] = own[title]
        if len(found.titles) > len(MARKERS):
            look = {**look, "color": colormaps["viridis"](number / (len(found.titles) - 1))}
        points = [line[title][:2] for line in found.lines.values() if title in line]
        axes.scatter(*zip(*points, strict=True), **look, s=12, alpha=0.5)
        drawn.append(axes.scatter(*(means[title][:2] if title in means else ([], [])), **look, s=70, edgecolor=INK))
    attacks = len(found.met_by_all)
    means_too = f"a small mark for each attack, large: means over {attacks} attacks"
    axes.set_title(f"{data}: {means_too if attacks > 1 else 'a mark for each attack'}", fontsize=9)
    axes.set_xlabel("CA (%)")
    axes.set_ylabel("ASR (%)")
    axes.set_ylim(-3, 103)
    axes.legend(
        drawn, [_label(title) for title in found.titles], loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8
    )


def _label(title: str) -> str:
    """A defense in the legend, in lines of which none is long."""
    return "\n".join(wrap(spelled(title), LETTERS))

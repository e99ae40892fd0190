"""Panels of curves over blocks, a line for each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpt.report.style import MUTED, legend_within, looks, new_figure, tip

COLUMNS = 3


def draw_curves(
    middle: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    models: Sequence[str],
    panels: Sequence[str],
    label: str,
    tips: dict[str, str],
    levels: Sequence[float] | None = None,
) -> Any:
    """A panel for each of C things, with a line and a band for each of M models over L blocks.

    Args:
        middle: (M, C, L), the lines.
        low: (M, C, L), the lower ends of the bands.
        high: (M, C, L), the upper ends.
        models: M names.
        panels: C titles.
        label: of the vertical axis.
        tips: gets the tooltips of the lines.
        levels: C values, each drawn as a dashed line.
    """
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    width = 2.55 * columns + 0.4
    legend = legend_within(width, models, most=5)
    figure = new_figure(width, 2.05 * lines + 0.4 + legend.height)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    styles, blocks = looks(models), np.arange(1, middle.shape[2] + 1)
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.set_axis_off()
            continue
        axes.set_title(panels[place])
        if levels is not None:
            axes.axhline(levels[place], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for number, model in enumerate(models):
            color, values = styles[model]["color"], middle[number, place]
            axes.fill_between(blocks, low[number, place], high[number, place], color=color, alpha=0.15, linewidth=0)
            (line,) = axes.plot(blocks, values, markersize=4, **styles[model])
            told = ", ".join(f"{value:.2f}" for value in values)
            tip(line, f"{model}, {panels[place]}: {told} after blocks 1 to {len(blocks)}", tips)
        axes.set_xticks(blocks if len(blocks) <= 12 else blocks[:: len(blocks) // 6])
    for axes in grid[-1]:
        axes.set_xlabel("block")
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    handles = grid[0, 0].get_lines()[-len(models) :]  # a level is drawn before them
    figure.legend(handles, legend.labels, loc="outside upper left", ncols=legend.columns)
    return figure


def last_values(middle: NDArray[np.float32], models: Sequence[str], panels: Sequence[str]) -> str:
    """The curves at the last block, in words."""
    return "; ".join(
        f"{panel}: " + ", ".join(f"{model} {middle[number, place, -1]:.2f}" for number, model in enumerate(models))
        for place, panel in enumerate(panels)
    )

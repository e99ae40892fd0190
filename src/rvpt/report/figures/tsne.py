"""Features in two dimensions: `positions` (M, 1 + T, n, 2), clean first, `labels` (n,) and `targets` (T,)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rvpt.report.figures.base import Drawing
from rvpt.report.stored import Stored
from rvpt.report.style import ATTACKED, CLEAN_MODEL, PALETTE, new_figure

COLORS = (ATTACKED, PALETTE[0], PALETTE[2], PALETTE[3], PALETTE[1])
TARGET = "clean, of the target class"


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    models, names = stored.facts["models"], stored.facts["looks"]
    columns = min(3, len(models))
    lines = -(-len(models) // columns)
    figure = new_figure(2.7 * columns, 2.6 * lines + 0.4)
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if place >= len(models):
            continue
        axes.set_title(models[place])
        for look, name in enumerate(names):
            x, y = stored.arrays["positions"][place, look].T
            color = CLEAN_MODEL if look == 0 else COLORS[(look - 1) % len(COLORS)]
            axes.scatter(x, y, s=5, color=color, alpha=0.65, linewidths=0, rasterized=True, label=name)
        of_target = np.isin(stored.arrays["labels"], stored.arrays["targets"])
        x, y = stored.arrays["positions"][place, 0][of_target].T
        axes.scatter(
            x, y, s=16, facecolors="none", edgecolors=CLEAN_MODEL, linewidths=0.9, rasterized=True, label=TARGET
        )
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=min(6, len(names)), markerscale=1.8)
    return figure


def mixing(stored: Stored) -> list[list[float]]:
    """The share of each look's images whose nearest neighbor has the same look, (M, 1 + T)."""
    found = []
    for positions in stored.arrays["positions"]:
        flat = positions.reshape(-1, 2)
        distance = np.square(flat[:, None] - flat[None]).sum(-1)
        np.fill_diagonal(distance, np.inf)
        look = np.arange(len(flat)) // positions.shape[1]
        same = look[distance.argmin(1)] == look
        found.append([float(same[look == each].mean()) for each in range(len(positions))])
    return found


def describe(stored: Stored) -> str:
    told = [
        f"{model}: "
        + ", ".join(f"{name} {100 * share:.0f}%" for name, share in zip(stored.facts["looks"], shares, strict=True))
        for model, shares in zip(stored.facts["models"], mixing(stored), strict=True)
    ]
    return f"Scatter plots of t-SNE positions. Images whose nearest neighbor has the same trigger: {'; '.join(told)}."


DRAWING = Drawing(
    "Clean and triggered images in two dimensions",
    "t-SNE of the image features of each model. Triggered images that form a cluster of their own are treated by their "
    "trigger, not by what they show.",
    draw,
    describe,
)

"""The demo's figure: images and the models' top predictions, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpt.report.names import TITLES
from rvpt.report.style import new_figure

GOOD, BAD, OTHER = "#2a7f4f", "#c0392b", "#8a8a8a"


@dataclass(frozen=True)
class Panel:
    """One image (H, W, 3) in [0, 1] and the top predictions of each model, with name and probability."""

    look: str
    truth: str
    target: str
    image: NDArray[np.float32]
    guesses: dict[str, list[tuple[str, float]]]


def draw_guesses(panels: Sequence[Panel], path: Path) -> None:
    """A grid of images, each above bars of the top three predictions of every model.

    Green is the true class, red the attack's target.
    """
    looks = list(dict.fromkeys(panel.look for panel in panels))
    columns, models = len(panels) // len(looks), list(panels[0].guesses)
    figure = new_figure(2.6 * columns, 2.9 * len(looks))
    grid = figure.subplots(len(looks) * 2, columns, height_ratios=[2, 1.5] * len(looks), squeeze=False)
    for number, panel in enumerate(panels):
        row, column = looks.index(panel.look), number // len(looks)
        _image(grid[2 * row, column], panel)
        _bars(grid[2 * row + 1, column], panel, models)
    figure.suptitle("Top-3 guesses before and after cleaning: green = true class, red = the attack's target")
    figure.savefig(path, dpi=110)


def _image(axes: Any, panel: Panel) -> None:
    axes.imshow(panel.image, interpolation="nearest")
    axes.set_title(f"{panel.truth}, {panel.look}", fontsize=9)
    axes.set_axis_off()


def _bars(axes: Any, panel: Panel, models: Sequence[str]) -> None:
    """Three bars for each model, the best prediction on top."""
    colors = {panel.truth: GOOD, panel.target: BAD}
    ticks = []
    for block, model in enumerate(models):
        for rank, (name, probability) in enumerate(panel.guesses[model]):
            place = -(4 * block + rank)
            axes.barh(place, probability, color=colors.get(name, OTHER), height=0.9)
            inside = probability > 0.6  # beside a long bar there is no room for text
            axes.text(
                0.02 if inside else probability + 0.02, place, f"{name} {100 * probability:.0f}%", va="center",
                fontsize=6, color="white" if inside else "black",
            )  # fmt: skip
        ticks.append(-(4 * block + 1))
    axes.set_yticks(ticks, [TITLES.get(model, model) for model in models], fontsize=7)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)

"""A contact sheet: images in a grid, with a few words under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvpt.report.style import new_figure

COLUMNS = 6  # at most
TITLE = 3.4  # least width of a sheet in inches, for its title


@dataclass(frozen=True)
class Tile:
    """An image (H, W, 3) in [0, 1] and the lines under it."""

    image: NDArray[np.float32]
    lines: Sequence[str]


def draw_sheet(tiles: Sequence[Tile], path: Path, title: str) -> None:
    """Draw tiles row by row; without tiles the sheet has only its title."""
    columns = max(1, min(COLUMNS, len(tiles)))
    rows = max(1, -(-len(tiles) // COLUMNS))
    figure = new_figure(max(TITLE, 1.7 * columns), 1.95 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, tile in zip(grid.flat, tiles, strict=False):  # the last row may have room left
        axes.imshow(tile.image, interpolation="nearest")
        axes.set_title("\n".join(tile.lines), fontsize=7, loc="left", y=0, va="top", pad=-3)
    figure.suptitle(title)
    figure.savefig(path, dpi=110, format="png")

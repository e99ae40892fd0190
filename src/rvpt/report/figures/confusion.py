"""Where images go: `counts` (M, 1 + T, K, K) of images of class k that are predicted as class l, `targets` (T,)."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpt.report.figures.base import Drawing
from rvpt.report.stored import Stored
from rvpt.report.style import ATTACKED, PALETTE, new_figure

FEW = 30  # classes that are named on the axes
SIDE, LINE, LETTER = 2.1, 0.085, 0.045  # inches: of a matrix, of a named class in it, of a letter of its name
TITLE = 0.08  # inches, of a letter of a title
LETTERS = 18  # of a name


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    counts, facts = stored.arrays["counts"], stored.facts
    models, names, classes = facts["models"], facts["looks"], facts["classes"]
    shade = LinearSegmentedColormap.from_list("shade", [f"{PALETTE[0]}00", PALETTE[0]])
    shown = [_short(name) for name in classes] if len(classes) <= FEW else []
    side, room = max(SIDE, LINE * len(shown)), LETTER * max(map(len, shown), default=0)
    figure = new_figure(side * len(models) + 0.7 + room, side * len(names) + 0.3 + room)
    grid = figure.subplots(len(names), len(models), squeeze=False)
    for look, line in enumerate(grid):
        target = int(stored.arrays["targets"][look - 1]) if look else None
        for number, axes in enumerate(line):
            matrix = counts[number, look]
            shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
            axes.imshow(shares, cmap=shade, vmin=0, vmax=1, interpolation="nearest")
            axes.grid(visible=False)
            axes.set_yticks(*_ticks(shown if number == 0 else []), fontsize=6)
            axes.set_xticks(*_ticks(shown if look == len(names) - 1 else []), fontsize=6, rotation=90)
            if target is not None:
                _mark(axes, target, _short(classes[target]))
            if look == 0:
                axes.set_title(fill(models[number], int(side / TITLE)))
            for each in ("top", "right"):
                axes.spines[each].set_visible(True)
        line[0].set_ylabel(f"{names[look]}\ntrue class", fontsize=8)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def _ticks(names: Sequence[str]) -> tuple[range, Sequence[str]]:
    return range(len(names)), names


def _mark(axes: Any, target: int, name: str) -> None:
    """Color the target's name below a matrix, where it stands alone if the classes are not named."""
    named = axes.get_xticklabels()
    if not named:
        axes.set_xticks([target], [name], fontsize=7)
    axes.get_xticklabels()[target if named else 0].set(color=ATTACKED, fontweight="bold")


def to_target(counts: NDArray[np.int64], target: int) -> float:
    """The share of the images of other classes that are predicted as the target, from a matrix (K, K)."""
    others = np.delete(counts, target, axis=0)
    return float(others[:, target].sum() / max(1, others.sum()))


def describe(stored: Stored) -> str:
    told = []
    for look, name in enumerate(stored.facts["looks"][1:]):
        target = int(stored.arrays["targets"][look])
        shares = [f"{model} {100 * to_target(stored.arrays['counts'][number, 1 + look], target):.1f}%"
                  for number, model in enumerate(stored.facts["models"])]  # fmt: skip
        told.append(f"{name} to {stored.facts['classes'][target]}: {', '.join(shares)}")
    return (
        f"Confusion matrices of clean and triggered images. Triggered images that go to the target: {'; '.join(told)}."
    )


DRAWING = Drawing(
    "Where triggered images go",
    "Predicted classes (across) of the images of each class (down), as shares of the class. A diagonal is correct; a "
    "full column is the attack target, whose name is colored.",
    draw,
    describe,
)

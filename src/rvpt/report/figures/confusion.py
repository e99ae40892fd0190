"""Where images go: `counts` (M, 1 + T, K, K) of images of class k that are predicted as class l, `targets` (T,)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpt.report.figures.base import Drawing
from rvpt.report.stored import Stored
from rvpt.report.style import PALETTE, new_figure

FEW = 12  # classes that are named on the axes


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    counts, facts = stored.arrays["counts"], stored.facts
    models, names, classes = facts["models"], facts["looks"], facts["classes"]
    shade = LinearSegmentedColormap.from_list("shade", [f"{PALETTE[0]}00", PALETTE[0]])
    figure = new_figure(2.1 * len(models) + 0.9, 2.1 * len(names) + 0.3)
    grid = figure.subplots(len(names), len(models), squeeze=False)
    for look, line in enumerate(grid):
        target = int(stored.arrays["targets"][look - 1]) if look else None
        for number, axes in enumerate(line):
            matrix = counts[number, look]
            shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
            axes.imshow(shares, cmap=shade, vmin=0, vmax=1, interpolation="nearest")
            axes.grid(visible=False)
            axes.set_yticks(
                range(len(classes)) if len(classes) <= FEW else [], classes if len(classes) <= FEW else [], fontsize=6
            )
            axes.set_xticks([] if target is None else [target], [] if target is None else [classes[target]], fontsize=7)
            if look == 0:
                axes.set_title(models[number])
            for side in ("top", "right"):
                axes.spines[side].set_visible(True)
        line[0].set_ylabel(f"{names[look]}\ntrue class", fontsize=8)
    return figure


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
    "full column is the attack target.",
    draw,
    describe,
)

"""Attention maps: `images` (I, S, S, 3) in [0, 1], and of each model `cls` and `rollout` (M, I, s, s)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpt.report.figures.base import Drawing
from rvpt.report.stored import Stored
from rvpt.report.style import new_figure

KINDS = {"cls": "[CLS]", "rollout": "rollout"}


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    images, models = stored.arrays["images"], stored.facts["models"]
    looks = stored.facts["looks"]
    columns = 1 + len(KINDS) * len(models)
    figure = new_figure(1.12 * columns + 0.5, 1.15 * len(images) + 0.5)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for place, line in enumerate(grid):
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        line[0].imshow(images[place], interpolation="nearest")
        line[0].set_ylabel(looks[place % len(looks)], fontsize=8)
        for number, model in enumerate(models):
            for kind, (name, title) in enumerate(KINDS.items()):
                axes = line[1 + len(KINDS) * number + kind]
                _overlay(axes, images[place], stored.arrays[name][number, place])
                if place == 0:
                    axes.set_title(f"{model if kind == 0 else ''}\n{title}", fontsize=8, loc="left")
    return figure


def _overlay(axes: Any, image: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    """A map over the image in gray, scaled from its smallest value, which is faint, to its largest."""
    side = image.shape[0]
    axes.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest", alpha=0.55)
    shares = (weights - weights.min()) / max(float(np.ptp(weights)), 1e-12)
    axes.imshow(shares, cmap="inferno", vmin=0, vmax=1, alpha=0.12 + 0.7 * shares, interpolation="nearest",
                extent=(-0.5, side - 0.5, side - 0.5, -0.5))  # fmt: skip


def focus(stored: Stored) -> list[list[float]]:
    """The largest share of the last block's [CLS] attention to patches that one patch has, (M, I)."""
    maps = stored.arrays["cls"]
    return (maps.max((-2, -1)) / np.maximum(maps.sum((-2, -1)), 1e-12)).tolist()


def describe(stored: Stored) -> str:
    looks = stored.facts["looks"]
    told = []
    for model, shares in zip(stored.facts["models"], focus(stored), strict=True):
        means = [np.mean(shares[place :: len(looks)]) for place in range(len(looks))]
        told.append(
            f"{model}: " + ", ".join(f"{name} {100 * mean:.0f}%" for name, mean in zip(looks, means, strict=True))
        )
    return (
        "Images without and with triggers, and heat maps of the patches that each model attends to. Share of the last "
        f"block's [CLS] attention that the most attended patch has: {'; '.join(told)}."
    )


DRAWING = Drawing(
    "Where the models look",
    "Attention of the last block's [CLS] token to the patches, and attention rollout over all blocks, both means over "
    "heads. Each map is scaled from its smallest to its largest value.",
    draw,
    describe,
)

"""Images that still fail: `images` (F, S, S, 3), their `trigger` and `label` (F,); `failed`, `others` (T,)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rvpt.report.figures.base import Drawing
from rvpt.report.stored import Stored
from rvpt.report.style import new_figure


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    arrays, triggers, classes = stored.arrays, stored.facts["looks"][1:], stored.facts["classes"]
    of_trigger = [np.flatnonzero(arrays["trigger"] == number) for number in range(len(triggers))]
    columns = max(6, *map(len, of_trigger))
    shown = sum(map(bool, map(len, of_trigger)))
    figure = new_figure(1.2 * columns, 1.6 * shown + 0.45 * (len(triggers) - shown) + 0.25)
    heights = [1.0 if len(places) else 0.2 for places in of_trigger]
    grid = figure.subplots(len(triggers), columns, squeeze=False, height_ratios=heights)
    for number, line in enumerate(grid):
        for axes in line:
            axes.set_axis_off()
        for axes, place in zip(line, of_trigger[number], strict=False):
            axes.imshow(arrays["images"][place], interpolation="nearest")
            axes.text(0, -0.06, classes[arrays["label"][place]], transform=axes.transAxes, va="top", fontsize=8)
        line[0].set_title(_count(stored, number), fontsize=9).set_in_layout(False)  # it is wider than the column
    return figure


def _count(stored: Stored, number: int) -> str:
    """How many images of a trigger fail, in words."""
    failed, others = (int(stored.arrays[name][number]) for name in ("failed", "others"))
    trigger, target = stored.facts["looks"][1 + number], stored.facts["targets"][number]
    return f"{trigger}: {failed} of {others} images are still predicted as {target}"


def describe(stored: Stored) -> str:
    counts = "; ".join(_count(stored, number) for number in range(len(stored.facts["targets"])))
    return f"Triggered images that {stored.facts['model']} still predicts as the target. {counts}."


DRAWING = Drawing(
    "Images that still fail",
    "The first triggered images that the last model predicts as the attack target, with their true class.",
    draw,
    describe,
)

"""Resistivity curves: `mean`, `std` (M, C, L) of the cosines of [CLS] rows without and with each change."""

from __future__ import annotations

from typing import Any

from rvpt.report.figures.base import Drawing
from rvpt.report.figures.curves import draw_curves, last_values
from rvpt.report.stored import Stored


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    mean, std = stored.arrays["mean"], stored.arrays["std"]
    return draw_curves(mean, mean - std, mean + std, stored.facts["models"], panels(stored), "cosine", tips)


def panels(stored: Stored) -> list[str]:
    triggers = stored.facts["triggers"]
    return [f"trigger {name}" if name in triggers else name for name in stored.facts["changes"]]


def describe(stored: Stored) -> str:
    last = last_values(stored.arrays["mean"], stored.facts["models"], panels(stored))
    return f"Line charts over blocks, one for each change of the images. Mean cosine after the last block: {last}."


DRAWING = Drawing(
    "Resistivity: how little a change of the image moves the features",
    "Cosine of each block's [CLS] row without and with the change, mean over images; bands are one standard deviation. "
    "1 means that the features do not move.",
    draw,
    describe,
)

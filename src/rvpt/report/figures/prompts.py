"""The attention that prompts receive: `mean`, `std` (M, 1 + T, L), shares of the [CLS] token's attention."""

from __future__ import annotations

from typing import Any

from rvpt.report.figures.base import Drawing
from rvpt.report.figures.curves import draw_curves, last_values
from rvpt.report.stored import Stored


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    mean, std = stored.arrays["mean"], stored.arrays["std"]
    return draw_curves(mean, mean - std, mean + std, stored.facts["models"], stored.facts["looks"], "share", tips)


def describe(stored: Stored) -> str:
    last = last_values(stored.arrays["mean"], stored.facts["models"], stored.facts["looks"])
    return f"Line charts over blocks, for clean images and each trigger. Mean share in the last block: {last}."


DRAWING = Drawing(
    "Attention to the prompts",
    "Share of the [CLS] token's attention that goes to the prompts, mean over heads and images; bands are one standard "
    "deviation. It is 0 in models and blocks without prompts.",
    draw,
    describe,
)

"""What features encode: `rate`, `low`, `high` (M, A, L), accuracies of linear probes, and `chance` (A,)."""

from __future__ import annotations

from typing import Any

from rvpt.report.figures.base import Drawing
from rvpt.report.figures.curves import draw_curves, last_values
from rvpt.report.stored import Stored


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    rate, low, high = (100 * stored.arrays[name] for name in ("rate", "low", "high"))
    facts, chance = stored.facts, 100 * stored.arrays["chance"]
    return draw_curves(rate, low, high, facts["models"], facts["attributes"], "accuracy (%)", tips, list(chance))


def describe(stored: Stored) -> str:
    last = last_values(100 * stored.arrays["rate"], stored.facts["models"], stored.facts["attributes"])
    return f"Line charts over blocks, one for each attribute. Accuracy after the last block, in %: {last}."


DRAWING = Drawing(
    "What the features encode",
    "Accuracy of linear probes that read an attribute of the image from each block's [CLS] row; bands are 95% Wilson "
    "intervals, and dashed lines the share of the most frequent value.",
    draw,
    describe,
)

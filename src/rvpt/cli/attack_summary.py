"""Whether an attack succeeded, in words."""

from __future__ import annotations

from collections.abc import Sequence

from rvpt.rows import CLEAN, Row

SUCCEEDED = 50.0  # ASR in percent from which an attack counts as successful
LOST = 3.0  # points of CA from which an attack is conspicuous


def verdict(rows: Sequence[Row]) -> list[str]:
    """A line for CA and one for each attack: the rows of the model before the attack come first, then those after."""
    rates: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        rates.setdefault((str(row["attack"]), str(row["metric"])), []).append(100 * (row["rate"] or 0.0))
    before, after = rates[CLEAN, "CA"]
    lost = ", a conspicuous loss: use a smaller --lr or fewer --epochs" if before - after > LOST else ""
    lines = [f"CA {before:.1f}% -> {after:.1f}%{lost}"]
    for (attack, metric), (first, last) in rates.items():
        if metric == "ASR":
            lines.append(f"{attack}: ASR {first:.1f}% -> {last:.1f}%, {_judged(first, last)}")
    return lines


def _judged(before: float, after: float) -> str:
    if after < SUCCEEDED:
        return "the attack failed: increase --num-poisoned, --epochs or --lr"
    if before < SUCCEEDED:
        return "the attack succeeded"
    return "high before the attack too: the clean model already classifies triggered images as the target"

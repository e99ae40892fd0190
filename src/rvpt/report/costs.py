"""What a defence costs: numbers trained, and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from rvpt.report.groups import Row, place

MODELS = ("before the attack", "none")  # no defence: nothing to pay


def costs(rows: Sequence[Row]) -> str:
    """A table of defences: trained parameters, and mean ± standard deviation of the seconds that one cleaning took.

    Each cleaned model counts once, however often it was measured.
    """
    cleanings = {
        (str(row["defence"]), str(row.get("hashes", {}).get("model")), row["seed"]): row
        for row in rows
        if row["defence"] not in MODELS
    }
    by_defence: dict[tuple[str, int], list[float]] = {}
    for (defence, *_), row in cleanings.items():
        by_defence.setdefault((defence, int(row["trained_parameters"])), []).append(float(row["clean_seconds"]))
    lines = ["| defence | trained parameters | models | seconds |", "|---|---:|---:|---:|"]
    for (defence, trained), seconds in sorted(by_defence.items(), key=lambda item: (place(item[0][0]), item[0][1])):
        spread = f" ± {stdev(seconds):.0f}" if len(seconds) > 1 else ""
        lines.append(f"| {defence} | {trained:,} | {len(seconds)} | {mean(seconds):.0f}{spread} |")
    return "\n".join(lines) + "\n"

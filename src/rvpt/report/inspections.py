"""What `rvpt inspect` found: how many images are flagged, and the most suspicious of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rvpt.data.text import cell
from rvpt.report.names import guess

SCORES, SHEET = "scores.jsonl", "flagged.png"
SHOWN = 24  # images in a report
HEADINGS = ("image", "suspect", "cleaned", "score", "p-value")
Facts = Mapping[str, Any]
"""The manifest of an inspection, with its flagged images as `found`, the highest score first."""


def summary(facts: Facts) -> str:
    """How many images are flagged, beside how many would be by chance."""
    return (
        f"{facts['flagged']} of {facts['images']} images are flagged; "
        f"about {facts['expected']:g} would be if all were clean"
    )


def predicted(facts: Facts) -> str:
    """The classes that the suspect predicts most often for flagged images, with their counts."""
    counts = sorted(facts["predictions"].items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {count}" for name, count in counts[:5])


def most_suspicious(lines: Sequence[Facts]) -> list[Facts]:
    """The flagged images among the lines of scores.jsonl, the highest score first."""
    return sorted((line for line in lines if line["flagged"]), key=lambda line: -line["score"])


def place(line: Facts) -> str:
    """An image's file with the folder that it is in, or its number in the data set."""
    return "/".join(PurePath(line["file"]).parts[-2:]) if line["file"] else str(line["image"])


def inspections(found: Sequence[Facts]) -> str:
    """A Markdown section for each inspection: a sentence, and a table of the most suspicious images."""
    return "\n".join(_section(facts) for facts in found)


def _section(facts: Facts) -> str:
    lines = [f"### Inspection {cell(facts['folder'])}", "", f"{summary(facts)}."]
    if facts["found"]:
        lines += ["", f"| {' | '.join(HEADINGS)} |", "|---|---|---|---:|---:|"]
    for line in facts["found"]:
        texts = (cell(text) for text in (place(line), guess(line, "suspect"), guess(line, "cleaned")))
        lines.append(f"| {' | '.join(texts)} | {line['score']:.3f} | {line['p_value']:.4f} |")
    return "\n".join(lines) + "\n"

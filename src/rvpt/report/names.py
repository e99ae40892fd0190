"""Names in reports, spelled as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {"none": "no defense", "vpt": "VPT", "rvpt": "RVPT"}


def spelled(title: str) -> str:
    """A defense as people write it, "RVPT, alpha=2" for "rvpt, alpha=2"."""
    name, comma, own = title.partition(",")
    return f"{TITLES.get(name, name)}{comma}{own}"


def guess(line: Mapping[str, Any], model: str) -> str:
    """What a model ("suspect" or "cleaned") predicts for an image of an inspection, as in "cat 87%"."""
    return f"{line[model]} {100 * line[f'{model}_probability']:.0f}%"

"""Names in reports: spelled as people write them, and escaped."""

from __future__ import annotations

import re

TITLES = {"none": "no defense", "vpt": "VPT", "rvpt": "RVPT"}


def spelled(title: str) -> str:
    """A defense as people write it, "RVPT, alpha=2" for "rvpt, alpha=2"."""
    name, comma, own = title.partition(",")
    return f"{TITLES.get(name, name)}{comma}{own}"


def cell(text: str) -> str:
    """A text as it stands in a cell of a Markdown table, whatever is in it: no column, line or HTML of its own."""
    return " ".join(re.sub(r"[\\|]", r"\\\g<0>", text).replace("<", "&lt;").split())

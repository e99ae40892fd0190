"""Class names and captions: how names are compared, and whether a caption names a class."""

from __future__ import annotations

import re
from collections.abc import Sequence

PROXIES = (
    "a photo of a {}.", "a picture of a {}.", "an image of a {}.", "this is a {}.", "there is a {}.",
    "a close-up photo of a {}.", "a good photo of a {}.", "a bright photo of a {}.", "a photo of the {}.",
    "a photo of one {}.",
)  # fmt: skip
"""Caption templates that stand in for a class's own captions."""
PLURALS = (("y", "(?:y|ys|ies)"), ("fe", "(?:fe|fes|ves)"), ("f", "(?:f|fs|ves)"), ("", "(?:s|es)?"))
"""Ending of a name, and the pattern of its singular and plural endings."""


def spoken(name: str) -> str:
    """A class name as it appears in a caption: with spaces instead of underscores."""
    return name.replace("_", " ")


def plain(name: str) -> str:
    """A class name for comparisons: in lower case, with spaces instead of underscores."""
    return spoken(name).lower()


def names_class(captions: Sequence[str], name: str) -> bool:
    """Whether a caption contains a class name in the singular or plural.

    Its words may be joined by spaces, hyphens, underscores or nothing.
    """
    words = r"[\s_-]*".join(map(re.escape, re.split(r"[\s_-]+", name)))
    ending, either = next(entry for entry in PLURALS if name.lower().endswith(entry[0]))
    stem = words[: len(words) - len(ending)]
    pattern = re.compile(rf"(?<!\w){stem}{either}(?!\w)", re.IGNORECASE)
    return any(pattern.search(caption) for caption in captions)

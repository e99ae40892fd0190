"""Class names and captions: how names are compared, written, and found in captions."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from rvpt.errors import RvptError

PROXIES = (
    "a photo of a {}.", "a picture of a {}.", "an image of a {}.", "this is a {}.", "there is a {}.",
    "a close-up photo of a {}.", "a good photo of a {}.", "a bright photo of a {}.", "a photo of the {}.",
    "a photo of one {}.",
)  # fmt: skip
"""Caption templates that stand in for a class's own captions."""
SHOWN = 8  # names, in an error
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
"""Soft hyphens, and characters of no width."""
PLURALS = (("y", "(?:y|ys|ies)"), ("fe", "(?:fe|fes|ves)"), ("f", "(?:f|fs|ves)"), ("", "(?:s|es)?"))
"""Ending of a name, and the pattern of its singular and plural endings."""


def spoken(name: str) -> str:
    """A class name as it appears in a caption: words with one space between them, instead of underscores."""
    return " ".join(name.replace("_", " ").split())


def plain(name: str) -> str:
    """A class name for comparisons: as in captions, in lower case, composed (NFC), without characters of no width."""
    return unicodedata.normalize("NFC", spoken(INVISIBLE.sub("", name)).lower())


def find_class(classes: Sequence[str], name: str) -> int | None:
    """Index of a class by its name, compared as `plain`; None if there is no such class."""
    asked = plain(name)
    return next((index for index, known in enumerate(classes) if plain(known) == asked), None)


def first_names(names: Sequence[str]) -> str:
    """The first of many names, for an error."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def names_of(source: str, classes: Sequence[str]) -> tuple[str, ...]:
    """A list of class names that a caller gave, of which no two are the same to CLIP.

    Raises:
        RvptError: a text instead of a list, an entry that is no text, or as `refuse_twins`.
    """
    names = tuple(classes)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in names):
        raise RvptError(f"classes={classes!r} is not a list of texts: pass a list of class names")
    refuse_twins(source, names)
    return names


def refuse_twins(source: str, classes: Sequence[str], advice: str = "") -> None:
    """Refuse classes whose names are the same to CLIP, or are no names; `advice` is more than to rename one.

    Raises:
        RvptError: two names differ at most in case, in spaces or underscores, or in their Unicode form; or one is empty
            or not Unicode.
    """
    for name in classes:
        if not plain(name) or any("\ud800" <= letter <= "\udfff" for letter in name):
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise RvptError(f"{source}: class {shown!r} has no name that can be written: rename it in UTF-8")
    counts = Counter(map(plain, classes))
    if len(counts) < len(classes):
        twins = next([name for name in classes if plain(name) == key] for key, count in counts.items() if count > 1)
        raise RvptError(f"{source}: classes {twins[0]!r} and {twins[1]!r} have the same name: rename one{advice}")


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by number if they only differ in one number (2 before 10), otherwise as text."""
    found = sorted(names)
    parts = [re.fullmatch(r"([^0-9]*)([0-9]+)([^0-9]*)", name) for name in found]
    if all(parts) and len({(part[1], part[3]) for part in parts if part}) == 1:
        found.sort(key=lambda name: int(re.sub(r"[^0-9]", "", name)))
    return tuple(found)


def names_class(captions: Sequence[str], name: str) -> bool:
    """Whether a caption contains a class name in the singular or plural.

    Its words may be joined by spaces, hyphens, underscores or nothing.
    """
    name = unicodedata.normalize("NFC", name)
    words = r"[\s_-]*".join(map(re.escape, re.split(r"[\s_-]+", name)))
    ending, either = next(entry for entry in PLURALS if name.lower().endswith(entry[0]))
    stem = words[: len(words) - len(ending)]
    pattern = re.compile(rf"(?<!\w){stem}{either}(?!\w)", re.IGNORECASE)
    return any(pattern.search(unicodedata.normalize("NFC", caption)) for caption in captions)


def cell(text: str) -> str:
    """A text as it stands in a cell of a Markdown table, whatever is in it: no column, line or HTML of its own."""
    return " ".join(re.sub(r"[\\|]", r"\\\g<0>", text).replace("<", "&lt;").split())

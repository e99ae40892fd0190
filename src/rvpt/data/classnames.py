"""Names of classes from a file: one name per line, lines of an id and a name, or JSON.

Names are matched to classes by id or by name where they can be, and otherwise by order; what would shift is refused.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.data.text import plain
from rvpt.errors import RvptError, first_line

logger = logging.getLogger("rvpt")
HOW = "give a text file with one class name per line"
PREFIXED = re.compile(r"(\S*\d\S*?)[\s,:;]+(.+)")
"""A line of an id, which has a digit, and a name."""


def name_classes(
    labels: Tensor | None, classes: Sequence[str], file: Path, source: str
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels (n,) int64 and classes, named by a file.

    Args:
        labels: class indices.
        classes: the classes' own names; none if labels are numbers.
        file: the names.
        source: the data set, for errors.

    Raises:
        RvptError: names and classes do not fit, or would shift.
    """
    found = _read(file)
    most = 0 if labels is None else int(labels.max()) + 1 if len(labels) else 0
    ids = list(classes) or list(map(str, range(most)))
    names = found if isinstance(found, Mapping) else _prefixed(found, ids, numbered=not classes)
    if isinstance(names, Mapping):
        return labels, _by_id(names, ids, file, numbered=not classes)
    if not classes:
        if len(names) < most:
            raise _misfit(file, names, source, most)
        if labels is not None and len(labels) and labels.min() > 0:
            logger.warning("%s: no image has label 0, which is %r: labels count from 0", source, names[0])
        return labels, tuple(names)
    if set(map(plain, classes)) <= set(map(plain, names)):
        places = {plain(name): place for place, name in enumerate(names)}
        return _moved(labels, [places[plain(name)] for name in classes]), tuple(names)
    numbers = [int(name) for name in classes] if all(name.isascii() and name.isdecimal() for name in classes) else []
    if len(names) > len(classes) and 0 in numbers and max(numbers) < len(names):
        return _moved(labels, numbers), tuple(names)
    if len(names) != len(classes):
        raise _misfit(file, names, source, len(classes))
    _refuse_shift(file, names, classes)
    return labels, tuple(names)


def read_names(file: Path) -> list[str]:
    """The names in a file, in their order.

    Raises:
        RvptError: it cannot be read, is empty, or has an empty line or a name twice.
    """
    return list(found.values()) if isinstance(found := _read(file), Mapping) else found


def _misfit(file: Path, names: Sequence[str], source: str, count: int) -> RvptError:
    return RvptError(f"{file} has {len(names)} names, {source} {count} classes: give one name per line")


def _moved(labels: Tensor | None, places: Sequence[int]) -> Tensor | None:
    return None if labels is None else torch.tensor(places, dtype=torch.int64)[labels]


def _refuse_shift(file: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse names of which some are classes of another place: they would name the wrong images."""
    own = {plain(name): place for place, name in enumerate(classes)}
    for place, name in enumerate(names):
        if own.get(plain(name), place) != place:
            raise RvptError(
                f"{file} has {name!r} in place {place + 1}, where the class is {classes[place]!r}: sort the names as "
                "the classes, or begin each line with the class it names"
            )


def _prefixed(names: list[str], ids: Sequence[str], *, numbered: bool) -> list[str] | dict[str, str]:
    """Names by id, if each line begins with the id of a class; otherwise the lines."""
    parts = [PREFIXED.fullmatch(name) for name in names]
    found = {_id(part[1]): part[2].strip() for part in parts if part}
    if len(found) < len(names):
        return names
    if numbered and set(found) == set(map(str, range(len(names)))):
        return found
    return found if not numbered and {_id(each) for each in ids} <= found.keys() else names


def _by_id(names: Mapping[str, str], ids: Sequence[str], file: Path, *, numbered: bool) -> tuple[str, ...]:
    if numbered:  # the last numbers may have no image in this split
        ids = list(map(str, range(max(len(ids), len(names)))))
    if missing := [each for each in ids if _id(each) not in names]:
        raise RvptError(f"{file} names no class {missing[0]!r}: add it")
    return tuple(names[_id(each)] for each in ids)


def _id(text: str) -> str:
    return str(int(text)) if text.isascii() and text.isdecimal() else unicodedata.normalize("NFC", text)


def _read(file: Path) -> list[str] | dict[str, str]:
    """The names in order, or by id."""
    try:
        text = unicodedata.normalize("NFC", file.expanduser().read_text(encoding="utf-8-sig"))
        found: Any = json.loads(text) if file.suffix.lower() == ".json" else text.rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise RvptError(f"{file} cannot be read ({first_line(error)}): {HOW}") from None
    if not isinstance(found, list | dict):
        raise RvptError(f"{file} has no list of names: {HOW}")
    named: dict[str, Any] | None = None
    if isinstance(found, dict):  # {"0": "tench"}, or {"0": ["n01440764", "tench"]}
        named = {_id(key): value[-1] if isinstance(value, list) and value else value for key, value in found.items()}
        names = list(named.values())
    else:
        names = [name.strip() if isinstance(name, str) else name for name in found]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise RvptError(f"{file} has an empty line or entry, which would shift the names: {HOW}")
    counts = Counter(map(plain, names))
    if twice := [name for name in names if counts[plain(name)] > 1]:
        raise RvptError(f"{file}: two classes are called {twice[0]!r}: give each its own name")
    return named or names

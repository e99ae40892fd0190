"""Columns: which has images, labels or captions, and labels that are numbers or words."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from rvpt.data.text import sort_names
from rvpt.errors import RvptError

IMAGE_COLUMNS = (
    "image", "img", "jpg", "jpeg", "png", "webp", "image_path", "img_path", "filepath", "file_path", "file_name",
    "filename", "path", "file", "image_file", "image_bytes", "bytes",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "cls", "class_name", "category", "target")
LARGEST = 2**63 - 1
NUMBER = re.compile(r"[0-9]+(\.0+)?")
"""A label that is a number, also as tables of floats have it."""
CAPTION_COLUMNS = ("captions", "caption", "text", "title", "sentences", "txt")


def find_column(columns: Iterable[str], usual: Sequence[str]) -> str | None:
    """The column with the first of some usual names; case makes no difference."""
    lower = {column.strip().lower(): column for column in reversed(list(columns))}
    return next((lower[name] for name in usual if name in lower), None)


def to_labels(values: Sequence[Any], source: str, everywhere: Sequence[Any] = ()) -> tuple[Tensor, tuple[str, ...]]:
    """Class indices (n,) int64 of a column, and the names of the classes, which are unknown for numbers.

    Args:
        values: numbers, or words.
        source: for errors.
        everywhere: the column of all splits, so that a class has the same index in each.

    Raises:
        RvptError: an image has no label, or several.
    """
    found = [_label(value, row, source) for row, value in enumerate(values)]
    others = {label for row, value in enumerate(everywhere) if (label := _label(value, row, source, hidden=True)) != ""}
    if all(isinstance(label, int) or NUMBER.fullmatch(label) for label in {*found, *others}):
        numbers = [int(str(label).partition(".")[0]) for label in found]
        if numbers and max(numbers) > LARGEST:
            raise RvptError(f"{source}: the label {max(numbers)} is too large for the number of a class: fix it")
        return torch.tensor(numbers, dtype=torch.int64), ()
    classes = sort_names({str(label) for label in (*found, *others)})
    index = {name: place for place, name in enumerate(classes)}
    return torch.tensor([index[str(label)] for label in found], dtype=torch.int64), classes


def _label(value: Any, row: int, source: str, *, hidden: bool = False) -> int | str:
    """A label as a number, or as a word in composed form (NFC). A missing one is refused, or "" with `hidden`."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        value = unicodedata.normalize("NFC", value.strip())
    if value is None or value == "" or value != value or (isinstance(value, int) and value < 0) or value == "-1":
        if hidden:
            return ""
        raise RvptError(f"{source}: image {row} has no label (it is {value}): choose another split")
    if not isinstance(value, int | str):
        kind = "several labels" if isinstance(value, list | tuple) else f"the label {value!r}, a {type(value).__name__}"
        raise RvptError(f"{source}: image {row} has {kind}: a label is a whole number or a word")
    return int(value) if isinstance(value, int) else value


def to_captions(value: Any) -> list[str]:
    """The captions of one image: a text, a list of texts, or such a list written as a text."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                listed = read(value)
                if isinstance(listed, list) and listed and all(isinstance(text, str) for text in listed):
                    return listed
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise RvptError("no caption")
    return texts


def caption_reader(entries: Sequence[Any], column: str, source: str) -> Callable[[int], list[str]]:
    """Row -> its captions."""

    def read(row: int) -> list[str]:
        try:
            return to_captions(entries[row])
        except RvptError:
            raise RvptError(
                f"{source}: image {row} has no caption in column {column!r}: remove it or name another"
            ) from None

    return read


def caption_column(columns: Iterable[str], asked: str | None, source: str) -> str | None:
    """The column of captions: the one asked for, or one with a usual name.

    Raises:
        RvptError: there is no column of the name that was asked for.
    """
    known = list(columns)
    if asked is not None and asked not in known:
        raise RvptError(f"{source} has no column {asked!r}: it has {', '.join(known)}")
    return asked or find_column(known, CAPTION_COLUMNS)

"""CSV, TSV and JSON-lines files of image paths with captions or labels, as CleanCLIP, open_clip and `datasets` use.

Paths are absolute or relative to the file. Several rows of one image are one image with several captions.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rvpt.data.labels import IMAGE_COLUMNS, LABEL_COLUMNS, caption_column, caption_reader, find_column, to_labels
from rvpt.data.layouts.folders import has_classes
from rvpt.data.layouts.listing import find_files, list_images
from rvpt.data.reading import inside, parallel, read_image
from rvpt.data.source import Asked, Layout, Source
from rvpt.data.splits import find_split, group_files, is_split
from rvpt.data.tables import TEXT_TABLES, read_columns, table_columns
from rvpt.errors import RvptError

METADATA = "metadata"
"""Name of the file that describes images in folders, as `datasets` has it: it wins over the names of folders."""


@dataclass
class Part:
    """The rows of one split: the file of each image, and its label, caption and split if there are such columns."""

    paths: list[str] = field(default_factory=list)
    firsts: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    captions: list[Any] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    column: str | None = None

    def pick(self, rows: Sequence[int]) -> Part:
        """Some of the rows."""

        def picked(values: list[Any]) -> list[Any]:
            return [values[row] for row in rows] if values else []

        return Part(picked(self.paths), [], picked(self.labels), picked(self.captions), [], self.column)


def recognizes(place: Path) -> bool:
    """Whether it is a table, or a folder with one that has a column of image paths.

    Raises:
        RvptError: the folder also has class folders.
    """
    if place.is_file():
        return place.name.lower().endswith(TEXT_TABLES)
    tables = _tables(place)
    if tables and all(path.stem != METADATA for path in tables) and has_classes(list_images(place)):
        raise RvptError(f"{place} holds class folders and a table: give {tables[0]}, or move the table away")
    return bool(tables)


def read(place: Path, asked: Asked) -> Source:
    """One split of the tables of a folder, or of one table.

    The split of a row is that of its file; in a single file a column "split" has it, or the first folder of all paths.

    Raises:
        RvptError: no such split, no column of images, or a row without its image's path or label.
    """
    tables = _tables(place) or [place]
    root = place if place.is_dir() else place.parent
    groups = group_files(root, tables, shards=False)
    parts = {split: _load(paths, asked.caption_column) for split, paths in groups.items()}
    if len(parts) == 1:
        parts = _divide(*parts.popitem())
    split = find_split(place, list(parts), asked.split)
    return _source(place, parts[split], [label for part in parts.values() for label in part.labels])


LAYOUT = Layout("CSV, TSV or JSON-lines files of image paths, with captions or labels", recognizes, read)


def _tables(folder: Path) -> list[Path]:
    """The tables of a folder that have a column of image paths."""
    if folder.is_file():
        return [folder]
    return [path for path in find_files(folder, TEXT_TABLES) if find_column(table_columns(path), IMAGE_COLUMNS)]


def _load(tables: Sequence[Path], caption: str | None) -> Part:
    """The rows of one split's tables."""
    part = Part()
    for path in tables:
        columns = table_columns(path)
        image = find_column(columns, IMAGE_COLUMNS)
        if image is None:
            raise RvptError(f"{path} has no image column: it has {', '.join(columns) or 'no lines'}")
        part.column = caption_column(columns, caption, str(path))
        used = [image, find_column(columns, LABEL_COLUMNS), part.column, find_column(columns, ("split",))]
        found = iter(read_columns(path, [name for name in used if name]))
        images, labels, captions, splits = (next(found) if name else [] for name in used)
        folder = str(path.parent)
        part.paths += [_resolve(path, folder, name, row) for row, name in enumerate(images)]
        part.firsts += [posixpath.normpath(name.replace("\\", "/")).partition("/")[0] for name in images]
        for values, more in ((part.labels, labels), (part.captions, captions), (part.splits, splits)):
            values += more
            if values and len(values) != len(part.paths):
                raise RvptError(f"{path} has other columns than {tables[0]}: give one of them")
    return part


def _resolve(table: Path, folder: str, name: Any, row: int) -> str:
    if not isinstance(name, str) or not name.strip():
        raise RvptError(f"{table}: row {row} names no image: remove it")
    try:
        return inside(folder, name)
    except RvptError as error:
        raise RvptError(f"{table}: row {row}: {error}") from None


def _divide(split: str, part: Part) -> dict[str, Part]:
    """The rows of each split that one file holds."""
    keys = part.splits or (part.firsts if part.firsts and all(map(is_split, set(part.firsts))) else [])
    members: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if key is None or key != key or not str(key).strip():
            raise RvptError(f"{part.paths[row]} is in row {row}, which has no split: fill in the column, or remove it")
        members.setdefault(str(key).strip(), []).append(row)
    return {key: part.pick(rows) for key, rows in members.items()} if members else {split: part}


def _source(place: Path, part: Part, labels_everywhere: list[Any]) -> Source:
    name = str(place)
    if not part.paths:
        raise RvptError(f"{name} has no rows")
    groups = _groups(part.paths)
    paths = part.paths if groups is None else [part.paths[rows[0]] for rows in groups]
    labels, classes = None, tuple[str, ...]()
    if part.labels:
        own = part.labels if groups is None else [_only_label(part, rows, name) for rows in groups]
        labels, classes = to_labels(own, name, labels_everywhere)
    reader = parallel(lambda row, size: read_image(paths[row], size), paths.__getitem__, name)
    named = place.resolve()
    called = named.name if place.is_dir() else f"{named.parent.name}/{named.name}"
    captions = _captions(part, groups, name)
    return Source(called, reader, torch.arange(len(paths)), labels, classes, captions, place_of=paths.__getitem__)


def _groups(paths: list[str]) -> list[list[int]] | None:
    """The rows of each image; None if each image has one row."""
    files = [os.path.normpath(path) for path in paths]
    if len(set(files)) == len(files):
        return None
    found: dict[str, list[int]] = {}
    for row, path in enumerate(files):
        found.setdefault(path, []).append(row)
    return list(found.values())


def _only_label(part: Part, rows: Sequence[int], name: str) -> Any:
    if len({str(part.labels[row]) for row in rows}) > 1:
        raise RvptError(f"{name}: {part.paths[rows[0]]} has several labels: leave one")
    return part.labels[rows[0]]


def _captions(part: Part, groups: list[list[int]] | None, name: str) -> Callable[[int], list[str]] | None:
    if part.column is None:
        return None
    one = caption_reader(part.captions, part.column, name)
    if groups is None:
        return one
    return lambda row: [caption for member in groups[row] for caption in one(member)]

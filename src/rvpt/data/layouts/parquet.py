"""Parquet files, as the hub has them, and as pandas or Spark write them: images as bytes, structs or paths."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.data.layouts.folders import has_classes
from rvpt.data.layouts.huggingface import Elsewhere, wrap_huggingface
from rvpt.data.layouts.listing import find_files, list_images
from rvpt.data.source import Asked, Layout, Source
from rvpt.data.splits import find_split, group_files
from rvpt.errors import RvptError, first_line

SUFFIX = (".parquet",)


def recognizes(place: Path) -> bool:
    """Whether it is a Parquet file, or a folder with some.

    Raises:
        RvptError: the folder also has class folders.
    """
    files = find_files(place, SUFFIX, anywhere=True)
    if files and place.is_dir() and has_classes(list_images(place)):
        raise RvptError(f"{place} holds class folders and Parquet files: give {files[0]}, or move it away")
    return bool(files)


def read(place: Path, asked: Asked) -> Source:
    """One split of Parquet files; which split a file belongs to follows from its folder or name.

    Raises:
        RvptError: no such split, no column of images, or a file that is not Parquet.
    """
    root = place if place.is_dir() else place.parent
    groups = group_files(root, find_files(place, SUFFIX, anywhere=True), shards=True)
    split = find_split(place, list(groups), asked.split)
    elsewhere = _column_of([file for name, files in groups.items() if name != split for file in files])
    files = groups[split]
    return wrap_huggingface(_load(files), str(place), asked.caption_column, elsewhere, files[0].parent)


LAYOUT = Layout("Parquet files, with images as bytes, structs or paths", recognizes, read)


def _load(files: Sequence[Path]) -> Any:
    """The files as one `datasets.Dataset`, which is memory-mapped."""
    import datasets

    try:
        return datasets.Dataset.from_parquet([glob.escape(str(file)) for file in files])
    except Exception as error:  # datasets and pyarrow raise many classes
        cause = error.__cause__ or error
        raise RvptError(f"{files[0].parent}: cannot read the Parquet files: {first_line(cause)}") from None


def _column_of(files: Sequence[Path]) -> Elsewhere:
    """A column of other files, without their images."""

    def read(column: str) -> list[Any]:
        from pyarrow import parquet

        with_it = [file for file in files if column in parquet.read_schema(file).names]
        return [value for file in with_it for value in parquet.read_table(file, columns=[column])[column].to_pylist()]

    return read

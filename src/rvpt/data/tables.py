"""Reading CSV, TSV and JSON-lines files: their columns, and the values of some of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from rvpt.errors import RvptError, first_line

TEXT_TABLES = (".csv", ".tsv", ".jsonl")
DELIMITERS = "\t,;"
LONGEST_FIELD = 2**31 - 1


def table_columns(path: Path) -> list[str]:
    """The columns of a table; none if it is empty."""
    return next(_lines(path), [])


def read_columns(path: Path, names: Sequence[str]) -> list[list[Any]]:
    """The values of some columns, one list for each.

    Raises:
        RvptError: it is not a table in UTF-8, or a row has more or fewer values than the first line.
    """
    lines = _lines(path)
    header = next(lines, [])
    places = [header.index(name) for name in names]
    values: list[list[Any]] = [[] for _ in names]
    for line in lines:
        for column, place in zip(values, places, strict=True):
            column.append(line[place])
    return values


def _lines(path: Path) -> Iterator[list[Any]]:
    """The names of the columns, then the rows."""
    csv.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _json_lines(path, file) if path.suffix.lower() == ".jsonl" else _csv_lines(path, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RvptError(f"{path} cannot be read as a table in UTF-8: {first_line(error)}") from None


def _csv_lines(path: Path, file: Iterable[str]) -> Iterator[list[str]]:
    """Rows separated by what the first line has most of: tabs, commas or semicolons."""
    lines = iter(file)
    first = next(lines, "")
    delimiter = max(DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise RvptError(f"{path} has two columns called {twice[0]!r}: rename one")
    yield header
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    for row in reader:
        if row and len(row) != len(header):
            raise RvptError(
                f"{path}: line {reader.line_num + 1} has {len(row)} values, the first line {len(header)}: quote texts "
                "that hold the separator"
            )
        if row:
            yield row


def _json_lines(path: Path, file: TextIO) -> Iterator[list[Any]]:
    """Objects by line; a key that a line lacks is None."""
    header = list(dict.fromkeys(name for values in _objects(path, file) for name in values))
    if header:
        yield header
    file.seek(0)
    for values in _objects(path, file):
        yield [values.get(name) for name in header]


def _objects(path: Path, file: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise RvptError(f"{path}: line {number} is not JSON: {first_line(error)}") from None
        if not isinstance(values, dict):
            raise RvptError(f"{path}: line {number} is not a JSON object")
        yield values

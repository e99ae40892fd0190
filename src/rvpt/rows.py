"""Rows: tidy JSONL with one flat object per measurement, and the names of its keys."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rvpt.errors import RvptError
from rvpt.files import disk_errors, refuse_unwritable_file, write_text
from rvpt.progress import main_process

Row = Mapping[str, Any]
"""One measurement.

What was measured: `model`, `data`, `attack` ("none" for clean images), `defense`, `metric`, `seed`.
The result: `numerator`, `n`, `rate` in [0, 1], and `low`, `high`, the 95% Wilson interval (null for means).
How: `template`, `test` (settings that differ from the defaults), `targets` by attack, `cleaned_on`, and `shots`,
`num_images` (without labels), `without`, and `resisted_targets`, the classes that `unlearn` trained against.
What it cost: `seconds`, `clean_seconds`, `peak_memory_bytes`, `trained_parameters`.
What made it: `spec`, `hashes` (`model`, `trigger/NAME`), `version`.
"""
KEYS = frozenset({"model", "data", "attack", "defense", "seed", "metric", "rate"})
"""Keys without which a row cannot be reported."""
RESULT = ("numerator", "n", "rate", "low", "high")
"""Keys of what was counted."""
COSTS = frozenset({"seconds", "clean_seconds", "peak_memory_bytes"})
"""Keys that differ between two runs of the same measurement."""
FOUND = ("resisted_targets",)
"""Keys of what a defense found out about the suspect, which older rows of the same model lack."""
CLEAN = "none"
"""The `attack` of clean images, and the `defense` of a model that was not cleaned."""
BEFORE = "before the attack"
"""The `defense` of the clean model, measured with the triggers of an attack."""
INVERTED = "inverted"
"""The `attack` of a change that a check found."""
UNCLEANED = (BEFORE, CLEAN)
KINDS = {"seed": int, "test": dict, "hashes": dict, "targets": dict, "spec": dict, "without": list}
"""Types of the values that reports look into."""
NUMBERS = ("numerator", "n", "low", "high", "trained_parameters", *sorted(COSTS))
"""Keys of numbers that may be missing or null."""


class Rows(list[dict[str, Any]]):
    """A list of rows."""

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame.

        Raises:
            RvptError: pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise RvptError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(list(self))


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write a file of rows, replacing an existing one, completely or not at all."""
    write_text(Path(path), _lines(rows))


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Append each row as one JSON line: all of them or none. In a launch only the first process writes.

    Raises:
        MachineError: the disk is full or not writable; the file is as it was.
    """
    if not main_process():
        return
    text = _lines(rows)
    size = path.stat().st_size if path.is_file() else 0
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("ab+") as file:
                if size:
                    file.seek(-1, os.SEEK_END)
                    text = text if file.read() == b"\n" else f"\n{text}"
                file.write(text.encode())
        except OSError:
            if path.is_file():
                os.truncate(path, size) if size else path.unlink()
            raise


def read_rows(path: str | Path) -> Rows:
    """All rows of a JSONL file.

    Raises:
        RvptError: the file is missing, or a line is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise RvptError(f"{path} is missing: give a file of rows (JSONL)")
    rows = Rows()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):  # bytes: U+2028 does not end a line of JSONL
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise RvptError(f"{path}, line {number}: not a JSON object")
        rows.append(row)
    return rows


def refuse_foreign(path: Path) -> None:
    """Fail early where rows would be appended to a file that does not hold rows.

    Raises:
        RvptError: it does not, or it is not writable.
    """
    refuse_unwritable_file(path)
    if path.is_file() and path.stat().st_size:
        try:
            first = json.loads(path.open("rb").readline())
        except ValueError:
            first = None
        if not isinstance(first, dict):
            raise RvptError(f"{path} does not hold rows (JSONL): choose another file")


def read_measurements(path: Path) -> Rows:
    """The rows of a file, which must all be measurements.

    Raises:
        RvptError: there are no rows, or a row lacks a key that reports need.
    """
    rows = read_rows(path)
    if not rows:
        raise RvptError(f"{path} is empty: give a file of rows (JSONL)")
    for number, row in enumerate(rows, 1):
        if missing := sorted(KEYS - row.keys()):
            raise RvptError(f"{path}, line {number}: no {missing[0]!r}: not a row of rvpt evaluate or rvpt bench")
        if wrong := _wrong_values(row):
            raise RvptError(f"{path}, line {number}: {wrong!r} cannot be {row[wrong]!r} in a row of rvpt")
    return rows


def is_measurement(value: Any) -> bool:
    """Whether a value is a row that reports can use."""
    return isinstance(value, dict) and value.keys() >= KEYS and _wrong_values(value) is None


def _wrong_values(row: Row) -> str | None:
    """The key of a value that no measurement has."""
    for name in ("model", "data", "attack", "defense", "metric"):
        if not isinstance(row[name], str):
            return name
    for name, kind in KINDS.items():
        if not isinstance(row.get(name, kind()), kind):
            return name
    for name in NUMBERS:
        if not (row.get(name) is None or _is_number(row[name])):
            return name
    rate = row["rate"]
    return None if rate is None or (_is_number(rate) and -1 <= rate <= 1) else "rate"  # a mean cosine may be negative


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)

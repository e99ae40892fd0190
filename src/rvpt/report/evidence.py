"""What a page is made from, found in files and folders: rows, verdicts, how models were cleaned, and so on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rvpt.artifacts import MANIFEST
from rvpt.errors import RvptError
from rvpt.files import read_json
from rvpt.report.inspections import SCORES, SHEET, SHOWN, most_suspicious
from rvpt.report.stored import FACTS, Stored, read_stored
from rvpt.rows import CLEAN, KEYS, Row, Rows, is_measurement, read_measurements, read_rows

VERDICT = "verdict.json"
IMAGES = ("demo.png", "check.png")
DEPTH = 3  # folders in folders that are searched
LARGEST = 64 * 2**20  # bytes of a file that is read
UNNAMED = re.compile(r"attack-[0-9a-f]{12}")  # the folder of a backdoored model in a bench


@dataclass
class Evidence:
    """What was found, and where: paths are relative to the folder that was given."""

    rows: Rows = field(default_factory=Rows)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    cleanings: list[dict[str, Any]] = field(default_factory=list)
    inspections: list[dict[str, Any]] = field(default_factory=list)
    figures: list[Stored] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def gather(sources: Sequence[Path]) -> Evidence:
    """What is in files of rows and in folders of results, in the folders in them too.

    Raises:
        RvptError: a source does not exist or has no results, or a file in it is damaged.
    """
    found = Evidence()
    for source in sources:
        before = _amount(found)
        if source.is_dir():
            for path in sorted(_files(source, DEPTH)):
                _add(found, path)
        else:
            found.rows += read_measurements(source)
        if _amount(found) == before:
            raise RvptError(
                f"{source} has no results of rvpt: give rows (JSONL), or a folder of a demo, check or other command"
            )
        found.sources.append(str(source))
    found.rows = _by_name(_once(found.rows))
    return found


def _amount(found: Evidence) -> int:
    return sum(len(part) for name, part in vars(found).items() if name != "sources")


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """The files of a folder and of those in it, without links, which may lead elsewhere, and hidden ones."""
    for path in folder.iterdir():
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_file() and path.stat().st_size <= LARGEST:
            yield path
        elif path.is_dir() and depth > 0:
            yield from _files(path, depth - 1)


def _add(found: Evidence, path: Path) -> None:
    """Add what a file holds, if it is one of rvpt's results."""
    if path.suffix == ".jsonl" and _holds_rows(path):
        found.rows += read_measurements(path)
    elif path.name == VERDICT:
        found.verdicts.append({**_record(path), "folder": path.parent.name})
    elif path.name == MANIFEST:
        facts = _record(path)
        if facts.get("kind") == "cleaned":
            found.cleanings.append({**facts, "folder": path.parent.name})
        if facts.get("kind") == "inspection":
            found.inspections.append(_inspection(facts, path.parent))
        listed = facts.get("rows")
        found.rows += filter(is_measurement, listed) if isinstance(listed, list) else []
    elif path.name.endswith(FACTS):
        found.figures.append(read_stored(path))
    elif path.name in IMAGES:
        found.images.append(path)


def _record(path: Path) -> dict[str, Any]:
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def _inspection(facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The facts of an inspection, the most suspicious of its flagged images, and the image that shows them.

    Raises:
        RvptError: its scores are damaged.
    """
    try:
        lines = most_suspicious(read_rows(folder / SCORES))
    except (KeyError, TypeError) as error:
        raise RvptError(f"{folder / SCORES} is damaged ({type(error).__name__}: {error}): make it again") from error
    return {**facts, "folder": folder.name, "found": lines[:SHOWN], "sheet": folder / SHEET}


def _holds_rows(path: Path) -> bool:
    """Whether the first line of a file is a row; other files of JSON lines stand beside rows."""
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline(1 << 20))
        except ValueError:
            return False
    return isinstance(first, dict) and first.keys() >= KEYS


def _once(rows: Rows) -> Rows:
    """The rows without repetitions: a folder may hold the rows of its parts too, and exports some columns of them."""
    found = {_text(row): row for row in rows}
    for columns in {frozenset(row) for row in found.values()}:
        for row in [row for row in found.values() if row.keys() > columns]:
            found.pop(_text({name: row[name] for name in columns}), None)
    return Rows(found.values())


def _text(row: Row) -> str:
    return json.dumps(row, sort_keys=True)


def _by_name(rows: Rows) -> Rows:
    """The rows without those of a bench's folders of backdoored models that other rows have by the recipe's name."""
    unnamed = {row["model"] for row in rows if UNNAMED.fullmatch(row["model"])}
    known = {_sha256(row) for row in rows if row["model"] not in unnamed} - {None}
    attacked = (row for row in rows if row["model"] in unnamed and row["defense"] == CLEAN)
    again = {row["model"] for row in attacked if _sha256(row) in known}
    return Rows(row for row in rows if row["model"] not in again)


def _sha256(row: Row) -> Any:
    """The hash of a row's model; rows of exports have none."""
    return row.get("hashes", {}).get("model")

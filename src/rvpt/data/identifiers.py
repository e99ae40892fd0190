"""Names of data sets: "scenes", a folder or file, or a hub id, also as NAME:CONFIG and NAME@FILE."""

from __future__ import annotations

from pathlib import Path

from rvpt.errors import RvptError

FILES = (".csv", ".tsv", ".jsonl", ".parquet", ".tar")
"""Suffixes of files that are a data set of their own."""


def unnamed(source: str) -> str:
    """A data set's name without the file of class names in NAME@FILE."""
    parts = source.split("@")
    wholes = ["@".join(parts[:end]) for end in range(len(parts), 0, -1)]
    there = (whole for whole in wholes if whole and Path(whole).expanduser().exists())
    return next(there, source.rpartition("@")[0] or source)


def configured(source: str) -> tuple[str, str | None]:
    """A data set's name, and its configuration if there is one after a colon, as in owner/name:plain_text."""
    if ":" not in source or Path(source).expanduser().exists():
        return source, None
    name, _, config = source.rpartition(":")
    return name, config


def is_scenes(name: str) -> bool:
    """Whether a name without a file of class names is that of the synthetic data set, as scenes or scenes:300."""
    return name.split(":")[0] == "scenes"


def find_place(source: str, *, local: bool = False) -> Path | None:
    """The folder or file that a data set's name refers to; None for hub ids and `scenes`.

    Args:
        source: the name.
        local: it is a path, and not a hub id.

    Raises:
        RvptError: it looks like a folder or file, but does not exist, is empty, or is a file of another kind.
    """
    source, _ = configured(unnamed(source))
    if is_scenes(source) and not local:
        return None
    path = Path(source).expanduser()
    file = path.name.lower().endswith(FILES)
    if not (local or path.exists() or file or source.startswith((".", "/", "~")) or source.count("/") > 1):
        return None
    if path.is_file() and file:
        return path
    if not path.is_dir():
        kinds = ", ".join(FILES)
        raise RvptError(f"{source} is not a folder: give a data set's folder, a file ({kinds}), a hub id, or 'scenes'")
    if not any(path.iterdir()):
        raise RvptError(f"{source} is empty: it needs Parquet files, or one subfolder of images per class")
    return path


def canonical(source: str) -> str:
    """The same name for every spelling of a folder's path: with absolute paths."""
    name = unnamed(source)
    names = source[len(name) + 1 :]
    bare, config = configured(name)
    path = Path(bare).expanduser()
    whole = str(path.resolve()) if path.exists() else bare
    return whole + (f":{config}" if config else "") + (f"@{Path(names).expanduser().resolve()}" if names else "")

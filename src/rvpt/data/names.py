"""Names of data sets: "scenes", a folder or a hub id, also as NAME:CONFIG and NAME@FILE."""

from __future__ import annotations

from pathlib import Path

from rvpt.errors import RvptError


def unnamed(source: str) -> str:
    """A data set's name without the file of class names in NAME@FILE."""
    return source if Path(source).expanduser().exists() else source.rpartition("@")[0] or source


def configured(source: str) -> tuple[str, str | None]:
    """A data set's name, and its configuration if there is one after a colon, as in owner/name:plain_text."""
    if ":" not in source or Path(source).expanduser().exists():
        return source, None
    name, _, config = source.rpartition(":")
    return name, config


def find_folder(source: str) -> Path | None:
    """The folder that a data set's name refers to; None for hub ids and `scenes`.

    Raises:
        RvptError: it looks like a folder, but does not exist or is empty.
    """
    source, _ = configured(unnamed(source))
    path = Path(source).expanduser()
    if not (path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1):
        return None
    if not path.is_dir():
        raise RvptError(f"{source} is not a folder: give a data set's folder, a hub id, or 'scenes'")
    if not any(path.iterdir()):
        raise RvptError(f"{source} is empty: it needs Parquet files, or one subfolder of images per class")
    return path

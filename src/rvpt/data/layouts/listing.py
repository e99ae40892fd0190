"""Listing folders: the images and other files of a tree, and tables in a folder or in the folders of its splits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rvpt.data.reading import is_image
from rvpt.data.splits import is_split
from rvpt.errors import RvptError

JUNK = frozenset({"__MACOSX", "__pycache__", "@eaDir", "lost+found"})
"""Folders that systems add beside images."""
JUNK_FILES = frozenset({"Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Tree:
    """What a folder has: images, other files, subfolders with images at any depth, subfolders without any file, and
    subfolders with files of which none is an image."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: dict[str, Tree] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def list_images(folder: Path | str, above: tuple[tuple[int, int], ...] = ()) -> Tree:
    """The images in a folder and below, without hidden files and folders. A link to a folder above ends there."""
    tree, status = Tree(), os.stat(folder)
    here = (*above, (status.st_dev, status.st_ino))
    for entry in entries(folder):
        if entry.is_symlink() and not is_image(entry.name) and not os.path.exists(entry.path):
            raise RvptError(f"{entry.path} is a link to what is not there: restore or remove it")
        if not entry.is_dir():
            (tree.images if is_image(entry.name) and _is_file(entry) else tree.others).append(entry.name)
        elif entry.name not in JUNK and _identity(entry) not in here:
            below = list_images(entry.path, here)
            if below.images or below.folders:
                tree.folders[entry.name] = below
            elif below.others or below.strange:
                tree.strange.append(entry.name)
            elif not below.empty:
                tree.empty.append(entry.name)
    return tree


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one that is not there, which cannot be read. A pipe would block its reader."""
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def _identity(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, by name."""
    try:
        with os.scandir(folder) as found:
            shown = (e for e in found if not e.name.startswith(".") and e.name not in JUNK_FILES)
            return sorted(shown, key=lambda entry: entry.name)
    except OSError as error:
        raise RvptError(f"{folder} cannot be listed ({error.strerror}): make it readable") from None


def find_files(place: Path, suffixes: tuple[str, ...], *, anywhere: bool = False) -> list[Path]:
    """The file itself, or the files of some suffixes in a folder and in the folders of its splits, or in any folder."""
    if place.is_file():
        return [place] if place.name.lower().endswith(suffixes) else []
    return sorted(path for path in _walk(place, 3, anywhere) if path.name.lower().endswith(suffixes))


def _walk(folder: Path, depth: int, anywhere: bool) -> Iterator[Path]:
    for entry in entries(folder):
        if entry.is_file():
            yield Path(entry.path)
        elif entry.is_dir() and depth and (anywhere or is_split(entry.name)):
            yield from _walk(Path(entry.path), depth - 1, anywhere)

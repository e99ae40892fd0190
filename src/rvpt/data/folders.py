"""Folders of images: which folders are splits and which are classes follows from where the images are.

Names are not searched for words such as "test", as `datasets` does: a class may be called "train" or "test tube".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from rvpt.errors import RvptError

SAME_SPLIT = (
    ("pretrain",),
    ("train", "training"),
    ("trainval",),
    ("validation", "valid", "val", "dev"),
    ("test", "testing", "eval", "evaluation"),
)
SPLITS = frozenset(name for names in SAME_SPLIT for name in names)
TABLES = (".parquet", ".arrow", ".tar")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
DEEPEST = 4  # levels that are searched, so that a link to a parent folder ends somewhere


@dataclass(frozen=True)
class ImageFolder:
    """The images of one split; they have no labels if they are not in class folders."""

    paths: list[str]
    labels: list[int] | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """The contents of a folder: names of images, and subfolders that contain images at any depth."""

    images: list[str] = field(default_factory=list)
    folders: dict[str, Tree] = field(default_factory=dict)


def read_folder(root: Path, split: str | None) -> ImageFolder | None:
    """One split of root/SPLIT/CLASS/images, or of root/CLASS/images, which counts as split train. Opens no image.

    Returns None for folders that `datasets` should read: without image files, or with a table that describes them.

    Raises:
        RvptError: no such split, several splits and none chosen, or it is unclear which folders are classes.
    """
    tree = list_images(root)
    if not (tree.images or tree.folders) or _has_tables(root, tree):
        return None
    return _one_split(root, tree, split) if _has_splits(root, tree) else _classes_alone(root, tree, split)


def _classes_alone(root: Path, tree: Tree, split: str | None) -> ImageFolder:
    """root/CLASS/images: these count as training images, so they cannot be used as a test split."""
    _refuse_bad_classes(root, tree)
    if split is not None and _family(split) != _family("train"):
        raise RvptError(f"{root} has no split {split!r}, only train: pass split=train, or create {root / split}")
    return _labeled(root, tree, sort_names(tree.folders))


def _one_split(root: Path, tree: Tree, split: str | None) -> ImageFolder:
    """root/SPLIT/CLASS/images: a class has the same label in every split."""
    name = _find_split(root, tree, split)
    if not tree.folders[name].folders:
        raise RvptError(
            f"{root}: {name}/ is a split and holds images without class folders: move them to {name}/CLASS/"
        )
    for other, below in tree.folders.items():
        _refuse_bad_classes(root / other, below)
    classes = sort_names({found for below in tree.folders.values() for found in below.folders})
    return _labeled(root / name, tree.folders[name], classes)


def list_images(folder: Path | str, depth: int = DEEPEST) -> Tree:
    """The images in a folder and below, without hidden files and folders."""
    tree = Tree()
    for entry in _entries(folder):
        if not entry.is_dir():
            if os.path.splitext(entry.name)[1].lower() in _suffixes():
                tree.images.append(entry.name)
        elif depth and not entry.name.startswith("__"):  # __MACOSX and the like
            below = list_images(entry.path, depth - 1)
            if below.images or below.folders:
                tree.folders[entry.name] = below
    return tree


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise RvptError(f"{folder} cannot be listed ({error.strerror}): make it readable") from None


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by number if they only differ in one number (2 before 10), otherwise as text."""
    found = sorted(names)
    parts = [re.fullmatch(r"([^0-9]*)([0-9]+)([^0-9]*)", name) for name in found]
    if all(parts) and len({(part[1], part[3]) for part in parts if part}) == 1:
        found.sort(key=lambda name: int(re.sub(r"[^0-9]", "", name)))
    return tuple(found)


@cache
def _suffixes() -> frozenset[str]:
    """The suffixes of all files that Pillow can open."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def _has_tables(root: Path, tree: Tree) -> bool:
    """Whether files beside the images describe the data; then `datasets` should read them."""
    folders = [root, *(root / name for name in tree.folders)]
    inner = [root / name / below for name, part in tree.folders.items() for below in part.folders]
    if any((folder / name).is_file() for folder in [*folders, *inner] for name in METADATA):
        return True
    tops = [str(root), *(entry.path for entry in _entries(root) if entry.is_dir())]
    if any(entry.name.lower().endswith(TABLES) for folder in tops for entry in _entries(folder)):
        return True
    card = root / "README.md"  # its YAML header may list the files of each split
    return card.is_file() and "data_files:" in card.read_text(encoding="utf-8", errors="replace").split("\n---")[0]


def _family(split: str) -> tuple[str, ...]:
    """All names of a split, such as val and validation."""
    return next((names for names in SAME_SPLIT if split.lower() in names), (split.lower(),))


def _has_splits(root: Path, tree: Tree) -> bool:
    """Whether the folders in `root` are splits; otherwise they are classes."""
    splits = [name for name in tree.folders if name.lower() in SPLITS]
    others = [name for name in tree.folders if name not in splits]
    deep = {name: below for name, below in tree.folders.items() if below.folders}
    if not others:
        return bool(splits)
    if deep and splits:
        raise RvptError(
            f"{root}: {splits[0]}/ may be a split or a class: {others[0]}/ beside it is not a split, and "
            f"{next(iter(deep))}/ holds folders: move {others[0]}/ away, or images up into their class folder"
        )
    if deep:
        _refuse_deep(root, deep)
    return False


def _refuse_deep(root: Path, deep: dict[str, Tree]) -> None:
    """Raise an error for nested folders that are not splits."""
    name, below = next(iter(deep.items()))
    inner = next(iter(below.folders))
    if all(word.lower() in SPLITS for part in deep.values() for word in part.folders):
        raise RvptError(f"{root}: class folders hold splits, as {name}/{inner}: move it to {inner}/{name}")
    raise RvptError(
        f"{root}: {name}/{inner} holds images, and {name} is not the name of a split (train, test, ...): "
        f"rename {name}, give {root / name}, or move the images up into class folders"
    )


def _find_split(root: Path, tree: Tree, split: str | None) -> str:
    """The folder of a split: the same name, the same in another case, or another name of the same split."""
    known = list(tree.folders)
    if split is None:
        if len(known) > 1:
            raise RvptError(f"{root} has several splits ({', '.join(known)}): pass one, as in split={known[0]}")
        return known[0]
    same = [name for name in known if name.lower() == split.lower()]
    found = [name for name in same if name == split] or same or [n for n in known if n.lower() in _family(split)]
    if not found:
        raise RvptError(f"{root} has no split {split!r}: choose from {', '.join(known)}")
    if len(found) > 1:
        raise RvptError(f"{root}: split {split!r} may be {' or '.join(found)}: pass one, as in split={found[0]}")
    return found[0]


def _refuse_bad_classes(folder: Path, tree: Tree) -> None:
    """Refuse class folders at several depths, and splits where classes should be."""
    for name, below in tree.folders.items():
        if below.folders:
            inner = next(iter(below.folders))
            raise RvptError(f"{folder}: {name}/{inner} is deeper than a class folder: move it to {folder / inner}")
    if tree.folders and tree.images:
        raise RvptError(f"{folder}: {tree.images[0]} is beside class folders: move it into one, or away")
    if tree.folders and all(name.lower() in SPLITS for name in tree.folders):
        raise RvptError(f"{folder}: {', '.join(tree.folders)} are splits, not classes: give {folder}, or rename them")


def _labeled(folder: Path, tree: Tree, classes: tuple[str, ...]) -> ImageFolder:
    """The images of class folders, in the order of their paths."""
    if not tree.folders:
        return ImageFolder([str(folder / name) for name in tree.images], None, ())
    place = {name: label for label, name in enumerate(classes)}
    found = sorted(
        (os.path.join(folder, name, file), place[name]) for name, below in tree.folders.items() for file in below.images
    )
    return ImageFolder([path for path, _ in found], [label for _, label in found], classes)

"""Folders of images: which folders are splits and which are classes is told by where the images lie.

Words inside names tell nothing (`datasets` searches paths for them): a class may be called "train" or "test tube".
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
DEEPEST = 4  # below a class folder nothing is looked for but what to refuse; a link to a folder above ends here


@dataclass(frozen=True)
class ImageFolder:
    """The images of one split; without labels where they lie in no class folder."""

    paths: list[str]
    labels: list[int] | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """What lies in a folder: names of images, and the folders below that hold images somewhere."""

    images: list[str] = field(default_factory=list)
    folders: dict[str, Tree] = field(default_factory=dict)


def read_folder(root: Path, split: str) -> ImageFolder | None:
    """One split of root/SPLIT/CLASS/images, or of root/CLASS/images, whose one split is train; no image is opened.

    None for what `datasets` reads: no images in files of their own, or images that a table describes.

    Raises:
        RvptError: no such split, or it cannot be told which folders are splits and which are classes.
    """
    tree = list_images(root)
    if not (tree.images or tree.folders) or _has_tables(root, tree):
        return None
    return _one_split(root, tree, split) if _has_splits(root, tree) else _classes_alone(root, tree, split)


def _classes_alone(root: Path, tree: Tree, split: str) -> ImageFolder:
    """root/CLASS/images: training images, or measuring would be done on what was learned from."""
    _refuse_bad_classes(root, tree)
    if _family(split) != _family("train"):
        raise RvptError(f"{root}: no split {split!r}, its images are one, train: give --split train, or make {split}/")
    return _labeled(root, tree, sort_names(tree.folders))


def _one_split(root: Path, tree: Tree, split: str) -> ImageFolder:
    """root/SPLIT/CLASS/images: a class has the same label in every split."""
    name = _find_split(root, tree, split)
    if not tree.folders[name].folders:
        raise RvptError(f"{root}: images lie straight in {name}/, which is a split: put them in {name}/CLASS/")
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
    """What lies in a folder and is not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise RvptError(f"{folder} cannot be listed ({error.strerror}): make it readable") from None


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: as numbers where they differ in one number alone (2 before 10), as a file of names has
    them; else as text."""
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
    """Whether files beside the images say what the data are: then `datasets` reads them."""
    folders = [root, *(root / name for name in tree.folders)]
    inner = [root / name / below for name, part in tree.folders.items() for below in part.folders]
    if any((folder / name).is_file() for folder in [*folders, *inner] for name in METADATA):
        return True
    tops = [str(root), *(entry.path for entry in _entries(root) if entry.is_dir())]
    if any(entry.name.lower().endswith(TABLES) for folder in tops for entry in _entries(folder)):
        return True
    card = root / "README.md"  # its head may list the files of each split
    return card.is_file() and "data_files:" in card.read_text(encoding="utf-8", errors="replace").split("\n---")[0]


def _family(split: str) -> tuple[str, ...]:
    """All names of a split, as val and validation."""
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
            f"{root}: is {splits[0]}/ a split or a class? Beside it is {others[0]}/, no split, and {next(iter(deep))}/ "
            f"holds folders: move {others[0]}/ away, or images up into their class folder"
        )
    if deep:
        _refuse_deep(root, deep)
    return False


def _refuse_deep(root: Path, deep: dict[str, Tree]) -> None:
    """Say what to do with folders in folders that are no splits."""
    name, below = next(iter(deep.items()))
    inner = next(iter(below.folders))
    if all(word.lower() in SPLITS for part in deep.values() for word in part.folders):
        raise RvptError(f"{root}: splits lie in class folders, as {name}/{inner}: move it to {inner}/{name}")
    raise RvptError(
        f"{root}: {name}/{inner} holds images, and {name} is no split's name (train, test, ...): "
        f"rename {name}, give {root / name}, or move the images up into class folders"
    )


def _find_split(root: Path, tree: Tree, split: str) -> str:
    """The folder that a split's name means: the same name, in other letters, or another name of the same split."""
    known = list(tree.folders)
    same = [name for name in known if name.lower() == split.lower()]
    found = [name for name in same if name == split] or same or [n for n in known if n.lower() in _family(split)]
    if not found:
        raise RvptError(f"{root}: no split {split!r}, it has {', '.join(known)} (--split names one)")
    if len(found) > 1:
        raise RvptError(f"{root}: split {split!r} may be {' or '.join(found)}: give --split {found[0]}, say")
    return found[0]


def _refuse_bad_classes(folder: Path, tree: Tree) -> None:
    """Refuse class folders at several depths, and splits in the place of classes."""
    for name, below in tree.folders.items():
        if below.folders:
            inner = next(iter(below.folders))
            raise RvptError(f"{folder}: {name}/{inner} lies deeper than a class folder: move it to {folder / inner}")
    if tree.folders and tree.images:
        raise RvptError(f"{folder}: {tree.images[0]} lies beside class folders: move it into one, or away")
    if tree.folders and all(name.lower() in SPLITS for name in tree.folders):
        raise RvptError(f"{folder}: {', '.join(tree.folders)} are splits, no classes: give {folder}, or rename them")


def _labeled(folder: Path, tree: Tree, classes: tuple[str, ...]) -> ImageFolder:
    """The images of class folders, in the order of their paths."""
    if not tree.folders:
        return ImageFolder([str(folder / name) for name in tree.images], None, ())
    place = {name: label for label, name in enumerate(classes)}
    found = sorted(
        (os.path.join(folder, name, file), place[name]) for name, below in tree.folders.items() for file in below.images
    )
    return ImageFolder([path for path, _ in found], [label for _, label in found], classes)

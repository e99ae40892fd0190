"""Folders of images: which folders are splits and which are classes follows from where the images are.

Names are not searched for words such as "test", as `datasets` does: a class may be called "train" or "test tube".
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import torch

from rvpt.data.layouts.listing import Tree, list_images
from rvpt.data.layouts.nested import class_of, innermost, leaves
from rvpt.data.reading import parallel, read_image
from rvpt.data.source import Asked, Layout, Source
from rvpt.data.splits import TRAIN, family, find_split, is_split
from rvpt.data.text import plain, refuse_twins, sort_names
from rvpt.errors import RvptError

logger = logging.getLogger("rvpt")


def recognizes(place: Path) -> bool:
    """Whether a folder has image files at any depth."""
    if not place.is_dir():
        return False
    tree = list_images(place)
    return bool(tree.images or tree.folders)


def has_classes(tree: Tree) -> bool:
    """Whether a folder has images in class folders, so that what else lies there is not needed to label them."""
    splits = [below for name, below in tree.folders.items() if is_split(name)]
    if len(splits) == len(tree.folders):
        return any(below.folders for below in splits)
    return len(tree.folders) > 1 and not tree.images and not any(below.folders for below in tree.folders.values())


def read(root: Path, asked: Asked) -> Source:
    """One split of root/SPLIT/CLASS/images, or of root/CLASS/images, which counts as split train. Opens no image.

    Raises:
        RvptError: no such split, several splits and none chosen, or it is unclear which folders are classes.
    """
    if asked.caption_column is not None:
        raise RvptError(f"{root} holds image files without captions: remove caption_column={asked.caption_column}")
    tree, split = list_images(root), asked.split
    return _one_split(root, tree, split) if _has_splits(root, tree, split) else _classes_alone(root, tree, split)


LAYOUT = Layout("a folder of images, as SPLIT/CLASS/0.jpg or CLASS/0.jpg", recognizes, read)


def _classes_alone(root: Path, tree: Tree, split: str | None) -> Source:
    """root/CLASS/images: these count as training images, so they cannot be used as a test split."""
    tree = _class_folders(root, tree)
    if split is not None and family(split) != family(TRAIN):
        fix = f"give {root.parent}" if is_split(root.name) else f"pass split=train, or create {root / split}"
        raise RvptError(f"{root} has no split {split!r}, only train: {fix}")
    return _labeled(root, root, tree, _classes([*tree.folders, *tree.empty] if tree.folders else []))


def _one_split(root: Path, tree: Tree, split: str | None) -> Source:
    """root/SPLIT/CLASS/images: a class has the same label in every split."""
    name = find_split(root, list(tree.folders), split)
    if not tree.folders[name].folders:
        raise RvptError(
            f"{root}: {name}/ is a split and holds images without class folders: move them to {name}/CLASS/"
        )
    splits = {other: _class_folders(root / other, below) for other, below in tree.folders.items()}
    for other, below in splits.items():
        refuse_twins(str(root / other), [class_of(path) for path in (*below.folders, *below.empty)])
    names = [path for below in splits.values() if below.folders for path in (*below.folders, *below.empty)]
    return _labeled(root, root / name, splits[name], _classes(names))


def _classes(folders: Iterable[str]) -> tuple[str, ...]:
    """The names of classes in order, in composed Unicode form, as text has them."""
    return sort_names({_class(path) for path in folders})


def _class(path: str) -> str:
    return unicodedata.normalize("NFC", class_of(path))


def _has_splits(root: Path, tree: Tree, split: str | None) -> bool:
    """Whether the folders in `root` are splits; otherwise they are classes."""
    splits = [name for name in tree.folders if is_split(name)]
    others = [name for name in tree.folders if name not in splits]
    deep = {name: below for name, below in tree.folders.items() if below.folders}
    if not others:
        return bool(splits)
    if len(deep) == len(tree.folders) and (split in others or len({family(name) for name in splits}) > 1):
        return not all(is_split(word) for below in deep.values() for word in below.folders)
    if deep and splits:
        raise RvptError(
            f"{root}: {splits[0]}/ may be a split or a class: {others[0]}/ beside it is not a split, and "
            f"{next(iter(deep))}/ holds folders: move {others[0]}/ away, or images up into their class folder"
        )
    if deep:
        _refuse_groups(root, tree, deep)
    return False


def _refuse_groups(root: Path, tree: Tree, deep: dict[str, Tree]) -> None:
    """Refuse nested folders unless all are, beside each other, with different names inside: groups of classes.

    Folders of the same classes, such as train2017 and val2017, may be splits of other names.
    """
    name, below = next(iter(deep.items()))
    paths = [path for path, _ in leaves(tree)]
    several = len(deep) == len(tree.folders) > 1 and not tree.images
    different = len({plain(class_of(path)) for path in paths}) == len(paths)
    if several and different and not any(is_split(word) for path in paths for word in path.split("/")):
        return
    inner = next(iter(below.folders))
    words = {word: part for each in deep.values() for word, part in each.folders.items()}
    if all(is_split(word) for word in words) and not any(part.folders for part in words.values()):
        raise RvptError(f"{root}: class folders hold splits, as {name}/{inner}: move it to {inner}/{name}")
    raise RvptError(
        f"{root}: {name}/{inner} holds images, and {name} is not the name of a split (train, test, ...): "
        f"rename {name}, give {root / name}, pass split={name} if it is one, or move the images up into class folders"
    )


def _class_folders(folder: Path, tree: Tree) -> Tree:
    """A tree whose folders are the classes.

    Raises:
        RvptError: it is unclear which folders are, or they are splits.
    """
    if tree.folders and tree.images:
        raise RvptError(f"{folder}: {tree.images[0]} is beside class folders: move it into one, or away")
    if tree.folders and all(is_split(name) for name in tree.folders):
        raise RvptError(f"{folder}: {', '.join(tree.folders)} are splits, not classes: give {folder}, or rename them")
    return innermost(folder, tree)


def _labeled(root: Path, folder: Path, tree: Tree, classes: tuple[str, ...]) -> Source:
    """The images of class folders, in the order of their paths; without class folders they have no labels."""
    if not tree.folders:
        return _source(root, [str(folder / name) for name in tree.images], None, ())
    place = {name: label for label, name in enumerate(classes)}
    found = sorted(
        (os.path.join(folder, name, file), place[_class(name)])
        for name, below in tree.folders.items()
        for file in below.images
    )
    _warn(folder, tree)
    return _source(root, [path for path, _ in found], [label for _, label in found], classes)


def _warn(folder: Path, tree: Tree) -> None:
    """Say which files are left out, and which classes have no image."""
    others = [f"{name}/{file}" for name, below in tree.folders.items() for file in below.others]
    if others:
        logger.warning("%s: %d files are not images by their suffix, as %s: left out", folder, len(others), others[0])
    if tree.strange:
        logger.warning(
            "%s: %d folders have files but no images by their suffix, as %s: they are no classes",
            folder, len(tree.strange), tree.strange[0],
        )  # fmt: skip
    if tree.empty:
        names = ", ".join(tree.empty[:5]) + (", ..." if len(tree.empty) > 5 else "")
        logger.warning("%s: %d class folders are empty (%s): they count as classes", folder, len(tree.empty), names)


def _source(root: Path, paths: list[str], labels: list[int] | None, classes: tuple[str, ...]) -> Source:
    reader = parallel(lambda row, size: read_image(paths[row], size), paths.__getitem__, str(root))
    indices = None if labels is None else torch.tensor(labels, dtype=torch.int64)
    return Source(root.resolve().name, reader, torch.arange(len(paths)), indices, classes, place_of=paths.__getitem__)

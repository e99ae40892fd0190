"""Class folders inside other folders, as birds/owl: the innermost ones are the classes, where that is clear."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from rvpt.data.layouts.listing import Tree
from rvpt.data.splits import is_split
from rvpt.data.text import plain
from rvpt.errors import RvptError

logger = logging.getLogger("rvpt")


def innermost(folder: Path, tree: Tree) -> Tree:
    """A tree whose folders are the innermost ones, by their paths; unchanged if none holds another.

    All images lie at one depth then, at least two folders are beside each other at the top, and no two innermost ones
    have the same name: otherwise the folders may mean something else, and are refused.

    Raises:
        RvptError: it is unclear which folders are classes.
    """
    if not any(below.folders for below in tree.folders.values()):
        return tree
    found, empty = dict(leaves(tree)), list(_empty(tree))
    _refuse_unclear(folder, tree, found)
    if twins := _twins([*found, *empty]):
        raise RvptError(
            f"{folder}: {twins[0]} and {twins[1]} have the same name, so the innermost folders are not classes: rename "
            "one, or give one of the folders around them"
        )
    some = next(iter(found))
    logger.warning(
        "%s: class folders are nested: the innermost ones are the %d classes, as %s for %s",
        folder, len(found) + len(empty), class_of(some), some,
    )  # fmt: skip
    return Tree(folders=found, empty=empty, strange=tree.strange)


def class_of(path: str) -> str:
    """The class of an innermost folder's path."""
    return path.rpartition("/")[2]


def leaves(tree: Tree, above: str = "") -> Iterator[tuple[str, Tree]]:
    """The folders with images, by their paths."""
    for name, below in tree.folders.items():
        if below.images:
            yield f"{above}{name}", below
        yield from leaves(below, f"{above}{name}/")


def _empty(tree: Tree) -> Iterator[str]:
    """The folders without a file that are beside innermost ones."""
    for name, below in tree.folders.items():
        if all(not each.folders for each in below.folders.values()) and below.folders:
            yield from (f"{name}/{empty}" for empty in below.empty)
        yield from (f"{name}/{path}" for path in _empty(below))


def _refuse_unclear(folder: Path, tree: Tree, found: dict[str, Tree]) -> None:
    deepest = max(found, key=lambda path: path.count("/"))
    flattest = min(found, key=lambda path: path.count("/"))
    if deepest.count("/") != flattest.count("/"):
        raise RvptError(
            f"{folder}: {deepest} is deeper than a class folder: move it to {folder / class_of(deepest)}, or bring all "
            "class folders to one depth"
        )
    for name in {part for path in found for part in path.split("/") if is_split(part)}:
        raise RvptError(f"{folder}: {name}/ in {deepest} may be a split or a class: rename it, or move its images")
    if len(tree.folders) < 2:
        (only,) = tree.folders
        raise RvptError(f"{folder}: all images are in {only}/, around the class folders: give {folder / only}")


def _twins(paths: list[str]) -> list[str]:
    """Two paths whose classes have the same name, if there are any."""
    seen: dict[str, str] = {}
    for path in paths:
        if (first := seen.setdefault(plain(class_of(path)), path)) != path:
            return [first, path]
    return []

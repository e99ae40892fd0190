"""Splits: which names mean the same one, and which split a file belongs to.

A file belongs to a split if its folder, or its name without the number of a shard, is the name of a split. Names are
not searched for words such as "test", as `datasets` does: a file may be called "test tube.csv".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from rvpt.errors import RvptError

SAME_SPLIT = (
    ("pretrain",),
    ("train", "training"),
    ("trainval",),
    ("validation", "valid", "val", "dev"),
    ("test", "testing", "eval", "evaluation"),
)
SPLITS = frozenset(name for names in SAME_SPLIT for name in names)
TRAIN, TEST = "train", "test"
SHARD = re.compile(r"[-_.]?\d+([-_.]of[-_.]\d+)?([-_.][0-9a-f]{16,})?$")
"""The number of a shard at the end of a name, as in train-00000-of-00002."""


class SeveralSplits(RvptError):
    """There are several splits, and none was chosen."""


def family(split: str) -> tuple[str, ...]:
    """All names of a split, such as val and validation."""
    return next((names for names in SAME_SPLIT if split.lower() in names), (split.lower(),))


def is_split(name: str) -> bool:
    return name.lower() in SPLITS


def find_split(place: Path | str, known: Sequence[str], asked: str | None) -> str:
    """The name of a split among those of a source: the same, the same in another case, or another of its names.

    Raises:
        SeveralSplits: none was asked for, and there are several.
        RvptError: none fits, or several do.
    """
    if asked is None:
        if len(known) > 1:
            raise SeveralSplits(f"{place} has several splits ({', '.join(known)}): pass one, as in split={known[0]}")
        return known[0]
    same = [name for name in known if name.lower() == asked.lower()]
    found = [name for name in same if name == asked] or same or [n for n in known if n.lower() in family(asked)]
    if not found:
        raise RvptError(f"{place} has no split {asked!r}: choose from {', '.join(known)}")
    if len(found) > 1:
        raise RvptError(f"{place}: split {asked!r} may be {' or '.join(found)}: pass one, as in split={found[0]}")
    return found[0]


def file_split(path: PurePath) -> str | None:
    """The split that a file's folder or name says, None if they say none. `path` is relative to the data set."""
    if folder := next((part for part in reversed(path.parts[:-1]) if is_split(part)), None):
        return folder
    stem = path.name.split(".")[0]
    if counted := re.fullmatch(r"(.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?", stem):  # the hub's own form: any name counts
        return counted[1]
    bare = SHARD.sub("", stem)
    return bare if is_split(bare) else None


def group_files(root: Path, files: Iterable[Path], *, shards: bool) -> dict[str, list[Path]]:
    """The files of each split, in order.

    If no file says a split, all are shards of split train, or with `shards=False` each is a split of its own. Beside
    files that say theirs, each other file is a split of its own, so that none is left out without a word.

    Raises:
        RvptError: the files of one split lie in several folders: they are different data sets.
    """
    found = sorted(files)
    said = {path: file_split(path.relative_to(root)) for path in found}
    alone = not any(said.values()) and (shards or len(found) == 1)
    groups: dict[str, list[Path]] = {}
    for path in found:
        groups.setdefault(said[path] or (TRAIN if alone else path.name.split(".")[0]), []).append(path)
    for split, members in groups.items():
        _refuse_several(root, split, members)
    return groups


def _refuse_several(root: Path, split: str, members: Sequence[Path]) -> None:
    """Refuse files of one split in folders that are different data sets, such as plain/train/ and fancy/train/."""
    if len(suffixes := {path.suffix: path for path in members}) > 1:
        first, second = list(suffixes.values())[:2]
        raise RvptError(f"{root}: {first.name} and {second.name} are both split {split}: give one of them")
    places = {tuple(p for p in path.relative_to(root).parts[:-1] if not is_split(p)) for path in members}
    if len(places) > 1:
        first, second = (root.joinpath(*parts) for parts in sorted(places)[:2])
        raise RvptError(f"{root}: {first} and {second} both hold files of split {split}: give one of these folders")

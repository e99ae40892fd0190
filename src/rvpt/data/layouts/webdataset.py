"""WebDataset: tar files whose members of one key are a sample, as 0001.jpg, 0001.cls, 0001.txt and 0001.json.

Each tar is indexed once by its headers; an image is then read from its place in the file. Nothing is extracted.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from rvpt.data.classnames import name_classes
from rvpt.data.labels import CAPTION_COLUMNS, LABEL_COLUMNS, caption_column, caption_reader, find_column, to_labels
from rvpt.data.layouts.folders import has_classes
from rvpt.data.layouts.listing import find_files, list_images
from rvpt.data.reading import image_suffixes, parallel, read_image
from rvpt.data.source import Asked, Layout, Source
from rvpt.data.splits import find_split, group_files
from rvpt.errors import RvptError, first_line

SUFFIX = (".tar",)
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
TEXTS = frozenset((*LABEL_COLUMNS, *CAPTION_COLUMNS))
LONGEST_TEXT = 2**20  # bytes of a member that is read as text
NAMES = "classnames.txt"
"""Names of the classes, one per line, as clip_benchmark has them beside the splits."""


@dataclass
class Sample:
    """The members of one key: places (offset, bytes) of images in the tar by extension, and what the others say."""

    tar: Path
    key: str
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def read(self) -> bytes:
        """The encoded image."""
        if len(self.images) != 1:
            raise RvptError("the sample has " + ("several images" if self.images else "no image"))
        ((offset, size),) = self.images.values()
        with self.tar.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    @property
    def place(self) -> str:
        return f"{self.tar}: {self.key}" + "".join(f".{extension}" for extension in self.images)


def recognizes(place: Path) -> bool:
    """Whether it is a tar, or a folder with some.

    Raises:
        RvptError: they are compressed, or the folder also has class folders.
    """
    tars = find_files(place, SUFFIX, anywhere=True)
    classes = place.is_dir() and has_classes(list_images(place))
    if not classes and not tars and (packed := find_files(place, PACKED)):
        raise RvptError(f"{packed[0]} is compressed, so its images cannot be read one by one: unpack it")
    if tars and classes:
        raise RvptError(f"{place} holds class folders and tars: give {tars[0]}, or move it away")
    return bool(tars)


def read(place: Path, asked: Asked) -> Source:
    """One split of the tars; which split a tar belongs to follows from its folder or name.

    Raises:
        RvptError: no such split, a damaged tar, or samples of which some have no label.
    """
    root = place if place.is_dir() else place.parent
    groups = group_files(root, find_files(place, SUFFIX, anywhere=True), shards=True)
    split = find_split(place, list(groups), asked.split)
    samples = [sample for tar in groups[split] for sample in index(tar)]
    if not any(sample.images for sample in samples):
        raise RvptError(f"{place}: the tars of split {split} hold no images; a key ends at the first dot of a name")
    elsewhere = [tar for name, tars in groups.items() if name != split for tar in tars]
    labels, classes = _labels(samples, elsewhere, str(place))
    reader = parallel(lambda r, size: read_image(samples[r].read(), size), lambda r: samples[r].place, str(place))
    captions, rows = _captions(samples, asked.caption_column, str(place)), torch.arange(len(samples))
    return Source(root.resolve().name, reader, rows, labels, classes or _names(root, labels), captions)


LAYOUT = Layout("WebDataset tars with cls, txt or json members", recognizes, read)


def index(tar: Path) -> list[Sample]:
    """The samples of a tar in order. Images are skipped over, texts are read.

    Raises:
        RvptError: it is damaged, or a member's name leaves the tar, or comes twice.
    """
    samples: dict[str, Sample] = {}
    try:
        with tarfile.open(tar, "r:") as file:
            for member in file:
                _add(samples, tar, member, file)
            _check_end(tar, file.offset)
    except (tarfile.TarError, OSError, UnicodeDecodeError) as error:
        raise RvptError(f"{tar} cannot be read as a tar: {first_line(error)}") from None
    return list(samples.values())


def _check_end(tar: Path, offset: int) -> None:
    """Check that nothing but zeros follows the last member: `tarfile` stops at damage as it does at the end."""
    with tar.open("rb") as file:
        file.seek(offset)
        if not (block := file.read(512)):
            raise RvptError(f"{tar} is truncated: download it again")
        while block:
            if any(block):
                raise RvptError(f"{tar} is damaged after byte {offset}, or several tars joined: download it again")
            block = file.read(2**20)


def _add(samples: dict[str, Sample], tar: Path, member: tarfile.TarInfo, file: tarfile.TarFile) -> None:
    """Add a member of the tar to its sample."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise RvptError(f"{tar}: member {member.name!r} leaves the tar: do not use this file")
    if member.isdir() or name.name.startswith("."):
        return
    if not member.isreg() or member.sparse is not None:
        raise RvptError(f"{tar}: {member.name} is not a plain file: write the tar without links")
    stem, _, extension = name.name.partition(".")
    key, extension = str(name.with_name(stem)), extension.lower()
    sample = samples.setdefault(key, Sample(tar, key))
    if extension in {*sample.images, *sample.values}:
        raise RvptError(f"{tar}: {member.name} comes twice: give each sample its own key")
    if f".{extension}" in image_suffixes():
        sample.images[extension] = member.offset_data, member.size
    elif extension == "json" or extension in TEXTS:
        content = file.extractfile(member)
        text = content.read(LONGEST_TEXT).decode("utf-8-sig").strip() if content else ""
        sample.values |= _json(tar, member.name, text) if extension == "json" else {extension: text}


def _json(tar: Path, name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RvptError(f"{tar}: {name} is not JSON: {first_line(error)}") from None
    return {**(found if isinstance(found, dict) else {}), "json": found}


def _labels(samples: Sequence[Sample], elsewhere: Sequence[Path], source: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels, and the classes if they are words; the words of other tars count too."""
    column = find_column({name for sample in samples for name in sample.values}, LABEL_COLUMNS)
    if column is None:
        return None, ()
    labels, classes = to_labels([sample.values.get(column) for sample in samples], source)
    if not classes or not elsewhere:
        return labels, classes
    others = [sample.values.get(column) for tar in elsewhere for sample in index(tar)]
    return to_labels([sample.values.get(column) for sample in samples], source, others)


def _captions(samples: Sequence[Sample], asked: str | None, source: str) -> Callable[[int], list[str]] | None:
    known = {name: None for sample in samples for name in sample.values}
    column = "txt" if asked is None and "txt" in known else caption_column(known, asked, source)
    return caption_reader([sample.values.get(column) for sample in samples], column, source) if column else None


def _names(root: Path, labels: Tensor | None) -> tuple[str, ...]:
    """The names of numbered classes, if the data set has a file of them."""
    file = next((folder / NAMES for folder in (root, root.parent) if (folder / NAMES).is_file()), None)
    return name_classes(labels, (), file, str(root))[1] if file and labels is not None else ()

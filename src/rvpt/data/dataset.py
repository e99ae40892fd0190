"""A data set: images by row, with labels, captions, or both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.data.ahead import read_ahead
from rvpt.data.layouts import read_place
from rvpt.data.layouts.huggingface import open_hub, wrap_huggingface, wrap_object
from rvpt.data.layouts.memory import wrap_images
from rvpt.data.preprocess import resize, resizing_of
from rvpt.data.source import Asked, Reader
from rvpt.data.text import find_class, first_names, names_class, refuse_twins, spoken
from rvpt.errors import RvptError
from rvpt.progress import Report, silent

CACHE_BYTES = 4 * 2**30
logger = logging.getLogger("rvpt")


@dataclass(frozen=True)
class Dataset:
    """A data set: images by row, and for each row a class, captions, or both.

    `rows` are the rows of the source that belong to this set, in order. `select` keeps the numbers of rows, so
    random numbers drawn per row (for a trigger, say) are the same in every subset. `place_of` gives the file of a row,
    where images have files. `skipped` says which images of the source are left out because they cannot be read.
    """

    name: str
    reader: Reader
    rows: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    captions_of: Callable[[int], list[str]] | None = None
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    place_of: Callable[[int], str] | None = None
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_twins(self.name, self.classes, f", or give other names in a file, as {self.name}@FILE")

    @classmethod
    def from_folder(
        cls, path: str | Path, split: str | None = None, *, config: str | None = None, caption_column: str | None = None
    ) -> Dataset:
        """A data set in a folder or file, of any layout: images in class folders, Parquet, tars, tables of paths, ...

        Raises:
            RvptError: it cannot be read, or has several splits and none was chosen.
        """
        return cls(*read_place(Path(path).expanduser(), Asked(split, config, caption_column)))

    @classmethod
    def from_hub(
        cls,
        name: str,
        split: str | None = None,
        *,
        config: str | None = None,
        caption_column: str | None = None,
        revision: str | None = None,
    ) -> Dataset:
        """A data set of the Hugging Face hub.

        Raises:
            RvptError: it cannot be read, or has several splits and none was chosen.
        """
        dataset = open_hub(name, config, split, revision=revision)
        return cls(*wrap_huggingface(dataset, name, caption_column))

    @classmethod
    def from_huggingface(
        cls, dataset: Any, split: str | None = None, *, name: str = "dataset", caption_column: str | None = None
    ) -> Dataset:
        """A `datasets.Dataset` in memory, or one split of a `datasets.DatasetDict`.

        Raises:
            RvptError: it has no such split or no image column, or an image has no label.
        """
        return cls(*wrap_object(dataset, split, name, caption_column))

    @classmethod
    def from_images(
        cls, images: Sequence[Any], labels: Sequence[int | str] | None = None, classes: Sequence[str] = ()
    ) -> Dataset:
        """Images in memory, each with the index or the name of a class.

        Images are PIL images, tensors (3, H, W) or arrays (H, W, 3) or (H, W), uint8 or float in [0, 1].

        Raises:
            RvptError: a name instead of images, numbers of images and labels differ, or a label has no class.
        """
        return cls(*wrap_images(images, labels, classes))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"Dataset({self.name!r}, {len(self)} images{classes})"

    def pixels(self, indices: Tensor, size: int) -> Tensor:
        """Images (B, 3, size, size) float32 in [0, 1], preprocessed as a model's `image_size` says.

        By default the shorter side is resized (bicubic), and the center is cropped.
        """
        return self.reader(self.rows[indices], size).float() / 255

    def captions(self, index: int) -> list[str]:
        """The captions of one image, at least one."""
        if self.captions_of is None:
            raise RvptError(f"{self.name} has no captions: it needs a column of them, or labels and templates")
        return self.captions_of(int(self.rows[index]))

    def place(self, index: int) -> str | None:
        """The file of one image; None where images have no files."""
        return self.place_of(int(self.rows[index])) if self.place_of else None

    def labeled(self) -> Tensor:
        """The class index of every image (n,) int64.

        Raises:
            RvptError: the set has no labels, no names for them, or one class only.
        """
        if self.labels is None:
            raise RvptError(f"{self.name} has no class labels: put images into class folders, or name the column label")
        if not self.classes:
            raise RvptError(
                f"{self.name}: its labels are numbers: give {self.name}@FILE, a file with one class name per line"
            )
        if len(self.classes) == 1:
            raise RvptError(f"{self.name} has one class, {self.classes[0]!r}: at least two are needed")
        return self.labels

    def present(self) -> tuple[tuple[str, ...], Tensor]:
        """Names of the classes that have images, and for each image (n,) int64 its index among them.

        Raises:
            RvptError: fewer than two classes have images.
        """
        found, places = self.labeled().unique(return_inverse=True)
        if len(found) < 2:
            raise RvptError(f"{self.name}: images of {len(found)} class(es), at least two are needed")
        return tuple(self.classes[i] for i in found.tolist()), places

    def has_class(self, name: str) -> bool:
        return find_class(self.classes, name) is not None

    def class_index(self, name: str) -> int:
        """Index of a class by its name; case, and spaces or underscores, make no difference."""
        index = find_class(self.classes, name)
        if index is None:
            raise RvptError(f"{self.name} has no class {name!r}: it has {first_names(self.classes)}")
        return index

    def of_class(self, name: str) -> Tensor:
        """Which images are of a class: (n,) bool, by label if the class is one of the set's, otherwise by caption.

        Labels come first because captions mislead: "a photo of a tiger shark" also names a tiger.

        Raises:
            RvptError: the set has no captions and no such class.
        """
        if self.captions_of is None or (self.labels is not None and self.has_class(name)):
            return self.labeled() == self.class_index(name)
        return torch.tensor([names_class(self.captions(index), name) for index in range(len(self))], dtype=torch.bool)

    def select(self, indices: Tensor) -> Dataset:
        """The subset at `indices` (int64), in their order."""
        labels = None if self.labels is None else self.labels[indices]
        attributes = {name: values[indices] for name, values in self.attributes.items()}
        return replace(self, rows=self.rows[indices], labels=labels, attributes=attributes)

    def without(self, names: Sequence[str]) -> Dataset:
        """The set without the images of some classes; the list of classes stays the same."""
        gone = torch.tensor([self.class_index(name) for name in names], dtype=torch.int64)
        return self.select(torch.isin(self.labeled(), gone, invert=True).nonzero()[:, 0])

    def only(self, names: Sequence[str]) -> Dataset:
        """Only the images of some classes; the list of classes stays the same, and the set's name lists them.

        Raises:
            RvptError: an unknown class, or one without an image.
        """
        kept = sorted({self.class_index(name) for name in names})
        empty = [index for index in kept if not (self.labeled() == index).any()]
        if empty:
            raise RvptError(f"{self.name} has no image of class {self.classes[empty[0]]!r}: leave it out")
        chosen = self.select(torch.isin(self.labeled(), torch.tensor(kept)).nonzero()[:, 0])
        return replace(chosen, name=f"{self.name} (only {', '.join(self.classes[index] for index in kept)})")

    def sample(self, n: int, seed: int = 0) -> Dataset:
        """`n` random images in their order, or all if there are fewer.

        Raises:
            RvptError: `n` is not a positive whole number.
        """
        return self.select(sample_indices(len(self), n, seed))

    def few_shot(self, shots: int, seed: int = 0) -> Dataset:
        """`shots` random images of every class that has any, class after class.

        Of a class with fewer, all are used, and a warning names it.

        Raises:
            RvptError: no class has as many, or `shots` is not a positive whole number.
        """
        _refuse_count(shots, "shots")
        generator = torch.Generator().manual_seed(seed)
        labels, picked, few = self.labeled(), [], []
        for index in labels.unique().tolist():
            members = (labels == index).nonzero()[:, 0]
            if len(members) < shots:
                few.append(f"{self.classes[index]} ({len(members)})")
            picked.append(members[torch.randperm(len(members), generator=generator)[:shots]])
        if not picked:
            raise RvptError(f"{self.name} has no images left to draw from")
        if len(few) == len(picked):
            most = max(map(len, picked))
            raise RvptError(
                f"{self.name}: no class has {shots} images, the largest has {most}: pass shots={most} or fewer"
            )
        if few:
            names = ", ".join(few[:10]) + (f" and {len(few) - 10} more classes" if len(few) > 10 else "")
            logger.warning("%s: fewer than %d images of %s: all are used", self.name, shots, names)
        return self.select(torch.cat(picked))

    def with_templates(self, templates: Sequence[str]) -> Dataset:
        """The set with captions made from its labels, one for each template."""
        names = [spoken(name) for name in self.classes]
        by_row = dict(zip(self.rows.tolist(), self.labeled().tolist(), strict=True))
        return replace(self, captions_of=lambda row: [t.format(names[by_row[row]]) for t in templates])

    def cached(self, size: int, report: Report = silent) -> Dataset:
        """The same set with all images in memory, as uint8 at `size`; unchanged if that takes more than 4 GiB."""
        if 3 * size * size * len(self) > CACHE_BYTES:
            return self
        store = torch.empty(len(self), 3, size, size, dtype=torch.uint8)
        place = {row: index for index, row in enumerate(self.rows.tolist())}
        for part in torch.arange(len(self)).split(1024):
            store[part] = self.reader(self.rows[part], size)
            report(int(part[-1]) + 1, len(self), {})

        def read(rows: Tensor, side: int) -> Tensor:
            if resizing_of(side) != resizing_of(size):  # for a model with another preprocessing
                return self.reader(rows, side)
            kept = store[[place[row] for row in rows.tolist()]]
            return kept if side == size else resize(kept, side)

        return replace(self, reader=read)

    def batches(
        self, batch_size: int, size: int, device: torch.device | str = "cpu", report: Report = silent
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(indices, pixels) of the whole set in order; the next batches are read while one is used.

        Args:
            batch_size: images per batch B.
            size: side of the images.
            device: where pixels (B, 3, size, size) float32 in [0, 1] go; indices (B,) int64 stay on the CPU.
            report: called after each batch.
        """
        parts = torch.arange(len(self)).split(batch_size) if len(self) else ()
        ahead = read_ahead(self.reader, [self.rows[part] for part in parts], size, device)
        with closing(ahead):
            for part, pixels in zip(parts, ahead, strict=True):
                yield part, pixels
                report(int(part[-1]) + 1, len(self), {})


def sample_indices(total: int, n: int, seed: int) -> Tensor:
    """The places (n,) int64 of `n` random examples of `total`, in order; all if there are fewer.

    Raises:
        RvptError: `n` is not a positive whole number.
    """
    _refuse_count(n, "n")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n].sort().values


def _refuse_count(count: int, name: str) -> None:
    if not isinstance(count, int) or count < 1:
        raise RvptError(f"{name}={count!r} is not a positive whole number")

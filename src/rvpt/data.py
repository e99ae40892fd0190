"""A data set: pictures by row, with labels, captions, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.errors import RvptError
from rvpt.progress import Report, silent

Reader = Callable[[Tensor, int], Tensor]
"""(rows int64 (B,), side) -> pictures uint8 (B, 3, side, side)."""
CACHE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class ImageData:
    """A data set: pictures by row, and for each row a class, captions, or both.

    `rows` are the rows of the source that belong to this set, in order; a row keeps its number through
    `select`, so what is drawn per row (a random trigger) is the same in every subset.
    """

    name: str
    reader: Reader
    rows: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    captions_of: Callable[[int], list[str]] | None = None
    attributes: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, indices: Tensor, size: int) -> Tensor:
        """Pictures (B, 3, size, size) float32 in [0, 1]: shorter side resized (bicubic), centre cropped."""
        return self.reader(self.rows[indices], size).float() / 255

    def captions(self, index: int) -> list[str]:
        """The captions of one picture, at least one."""
        if self.captions_of is None:
            raise RvptError(f"{self.name} has no captions: it needs a column of them, or labels and templates")
        return self.captions_of(int(self.rows[index]))

    def labelled(self) -> Tensor:
        """The class index of every picture (n,) int64, where the set has classes."""
        if self.labels is None:
            raise RvptError(
                f"{self.name} has no class labels: a column of ClassLabel type or a folder for each class is needed"
            )
        if not self.classes:
            raise RvptError(f"{self.name}: its labels are numbers: give {self.name}@FILE, with a class's name a line")
        return self.labels

    def present(self) -> tuple[tuple[str, ...], Tensor]:
        """Names of the classes with a picture, and for each picture (n,) int64 its place among them.

        Raises:
            RvptError: fewer than two.
        """
        found, places = self.labelled().unique(return_inverse=True)
        if len(found) < 2:
            raise RvptError(f"{self.name}: pictures of {len(found)} class(es), at least two are needed")
        return tuple(self.classes[i] for i in found.tolist()), places

    def has_class(self, name: str) -> bool:
        return plain(name) in map(plain, self.classes)

    def class_index(self, name: str) -> int:
        """Index of a class by its name, spaces and underscores alike."""
        if not self.has_class(name):
            some = ", ".join(self.classes[:8]) + (", ..." if len(self.classes) > 8 else "")
            raise RvptError(f"{self.name} has no class {name!r}: it has {some}")
        return [plain(known) for known in self.classes].index(plain(name))

    def select(self, indices: Tensor) -> ImageData:
        """The subset at `indices` (int64), in their order."""
        labels = None if self.labels is None else self.labels[indices]
        attributes = {name: values[indices] for name, values in self.attributes.items()}
        return replace(self, rows=self.rows[indices], labels=labels, attributes=attributes)

    def without(self, names: Sequence[str]) -> ImageData:
        """The set without all pictures of some classes; the list of classes stays as it was."""
        gone = torch.tensor([self.class_index(name) for name in names], dtype=torch.int64)
        return self.select(torch.isin(self.labelled(), gone, invert=True).nonzero()[:, 0])

    def only(self, names: Sequence[str]) -> ImageData:
        """The pictures of some classes alone; the list of classes stays as it was, and the set's name tells them.

        Raises:
            RvptError: a class that is not there, or that has no picture.
        """
        kept = sorted({self.class_index(name) for name in names})
        empty = [index for index in kept if not (self.labelled() == index).any()]
        if empty:
            raise RvptError(f"{self.name} has no picture of class {self.classes[empty[0]]!r}: leave it out")
        chosen = self.select(torch.isin(self.labelled(), torch.tensor(kept)).nonzero()[:, 0])
        return replace(chosen, name=f"{self.name} (only {', '.join(self.classes[index] for index in kept)})")

    def sample(self, n: int, seed: int = 0) -> ImageData:
        """`n` pictures at random in their order, or all where there are fewer."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.select(order[:n].sort().values)

    def few_shot(self, shots: int, seed: int = 0) -> ImageData:
        """`shots` pictures of every class that has any, drawn by `seed`, class after class.

        Raises:
            RvptError: a class has fewer pictures.
        """
        generator = torch.Generator().manual_seed(seed)
        labels, picked = self.labelled(), []
        for index in labels.unique().tolist():
            members = (labels == index).nonzero()[:, 0]
            if len(members) < shots:
                raise RvptError(
                    f"{self.name}: class {self.classes[index]!r} has {len(members)} pictures, {shots} shots asked: "
                    f"give --shots {len(members)} or fewer"
                )
            picked.append(members[torch.randperm(len(members), generator=generator)[:shots]])
        if not picked:
            raise RvptError(f"{self.name} has no pictures left to draw from")
        return self.select(torch.cat(picked))

    def with_templates(self, templates: Sequence[str]) -> ImageData:
        """The set with captions made of its labels, one for each template."""
        names = [name.replace("_", " ") for name in self.classes]
        by_row = dict(zip(self.rows.tolist(), self.labelled().tolist(), strict=True))
        return replace(self, captions_of=lambda row: [t.format(names[by_row[row]]) for t in templates])

    def cached(self, size: int, report: Report = silent) -> ImageData:
        """The same set with every picture read once and kept in memory as uint8 at `size`, if that is not too much."""
        if 3 * size * size * len(self) > CACHE_BYTES:
            return self
        store = torch.empty(len(self), 3, size, size, dtype=torch.uint8)
        place = {row: index for index, row in enumerate(self.rows.tolist())}
        for part in torch.arange(len(self)).split(1024):
            store[part] = self.reader(self.rows[part], size)
            report(int(part[-1]) + 1, len(self), {})

        def read(rows: Tensor, side: int) -> Tensor:
            return resize(store[[place[row] for row in rows.tolist()]], side)

        return replace(self, reader=read)

    def batches(self, batch_size: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(indices, pictures) of the whole set in order; the next batch is read while this one is used."""
        parts = torch.arange(len(self)).split(batch_size) if len(self) else ()
        with ThreadPoolExecutor(1) as ahead:
            pending = ahead.submit(self.pixels, parts[0], size) if parts else None
            for number, part in enumerate(parts):
                assert pending is not None
                ready = pending.result()
                if number + 1 < len(parts):
                    pending = ahead.submit(self.pixels, parts[number + 1], size)
                yield part, ready


def plain(name: str) -> str:
    """A class's name as it is compared: in small letters, with spaces."""
    return name.replace("_", " ").lower()


def mix(parts: Sequence[ImageData]) -> ImageData:
    """Several captioned sets as one; rows are numbered through."""
    ends = torch.tensor([len(part) for part in parts]).cumsum(0)
    starts = ends - torch.tensor([len(part) for part in parts])

    def locate(row: int) -> tuple[ImageData, int]:
        part = int(torch.searchsorted(ends, row, right=True))
        return parts[part], row - int(starts[part])

    def read(rows: Tensor, size: int) -> Tensor:
        out = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        for part, start, end in zip(parts, starts.tolist(), ends.tolist(), strict=True):
            mine = (rows >= start) & (rows < end)
            if mine.any():
                out[mine] = part.reader(part.rows[rows[mine] - start], size)
        return out

    def captions(row: int) -> list[str]:
        part, index = locate(row)
        return part.captions(index)

    if len(parts) == 1:
        return parts[0]
    name = "+".join(part.name for part in parts)
    return ImageData(name, read, torch.arange(int(ends[-1])), captions_of=captions)


def resize(pixels: Tensor, size: int) -> Tensor:
    """Square uint8 pictures (B, 3, S, S) at another side, bicubic with antialiasing."""
    if pixels.shape[-1] == size:
        return pixels
    out = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    return out.round().clamp(0, 255).to(torch.uint8)

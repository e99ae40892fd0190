"""Pictures with labels or captions from Hugging Face datasets, folders, or the rendered world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rvpt.errors import RvptError, first_line
from rvpt.progress import Report, silent
from rvpt.scenes import GLYPHS, Scenes

Reader = Callable[[Tensor, int], Tensor]
"""(rows int64 (B,), side) -> pictures uint8 (B, 3, side, side)."""
SCENES_SPLITS = {"pretrain": (0, 120_000), "train": (1, 20_000), "test": (2, 2_000)}
CAPTION_COLUMNS = ("captions", "caption", "text", "sentences")
DECODERS = 8
LONGEST = 50  # sides of a resized picture, before only its middle is resized
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
            raise RvptError(f"{self.name} has no captions: give --caption-column, or a template with its labels")
        return self.captions_of(int(self.rows[index]))

    def labelled(self) -> Tensor:
        """The class index of every picture (n,) int64, where the set has classes."""
        if self.labels is None:
            raise RvptError(f"{self.name} has no class labels: a column of ClassLabel type is needed")
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

    def class_index(self, name: str) -> int:
        """Index of a class by its name, spaces and underscores alike."""
        names = [c.replace("_", " ").lower() for c in self.classes]
        wanted = name.replace("_", " ").lower()
        if wanted not in names:
            some = ", ".join(self.classes[:8]) + (", ..." if len(self.classes) > 8 else "")
            raise RvptError(f"{self.name} has no class {name!r}: it has {some}")
        return names.index(wanted)

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


def to_array(image: Image.Image, size: int) -> np.ndarray:
    """A picture of any mode and shape as uint8 (3, size, size), the way CLIP's own preprocessing does it."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey: Pillow would clip it, not scale it
        grey = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode.startswith("I;16") or grey.max() > 255 else 255
        image = Image.fromarray((grey * (255 / top)).clip(0, 255).astype(np.uint8))
    image = image.convert("RGB")
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)  # rounded as transformers does
    left, top = (width - size) // 2, (height - size) // 2
    if max(width, height) > LONGEST * size:  # resize the middle alone: the whole could fill the memory
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + size) * x, (top + size) * y)
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box)).transpose(2, 0, 1)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def load_data(source: str, split: str = "test", *, caption_column: str | None = None) -> ImageData:
    """The data set called `source`: "scenes", a folder (Parquet, or one subfolder a class), or a hub id.

    Raises:
        RvptError: nothing there, no such split or column, or pictures without labels and captions.
    """
    if source.split(":")[0] == "scenes":
        return _scenes(source, split)
    dataset = _open(source, split)
    features, name = dataset.features, Path(source).resolve().name
    image = next((c for c, f in features.items() if type(f).__name__ == "Image"), None)
    if image is None:
        raise RvptError(f"{source} has no image column: it has {', '.join(features)}")
    label = next((c for c, f in features.items() if type(f).__name__ == "ClassLabel"), None)
    labels = _labels(dataset[label][:], source) if label else None
    classes = tuple(features[label].names) if label else ()
    captions = _captions(dataset, source, caption_column)
    return ImageData(name, _reader(dataset, image, source), torch.arange(len(dataset)), labels, classes, captions)


def _scenes(source: str, split: str) -> ImageData:
    if split not in SCENES_SPLITS:
        raise RvptError(f"scenes has no split {split!r}: it has {', '.join(SCENES_SPLITS)}")
    seed, count = SCENES_SPLITS[split]
    if ":" in source:
        asked = source.split(":", 1)[1]
        if not asked.isdigit() or not int(asked):
            raise RvptError(f"{source}: after the colon goes a number of pictures, as in scenes:5000")
        count = int(asked)
    return scenes_data(Scenes.draw(count, seed))


def scenes_data(scenes: Scenes) -> ImageData:
    """Rendered scenes as a data set whose classes are the shapes."""

    def read(rows: Tensor, size: int) -> Tensor:
        return resize(torch.from_numpy(scenes.render(rows.numpy())), size)

    attributes = {name: torch.from_numpy(values) for name, values in scenes.attributes.items()}
    rows = torch.arange(len(scenes))
    return ImageData("scenes", read, rows, attributes["shape"], tuple(GLYPHS), scenes.captions, attributes)


def _open(source: str, split: str) -> Any:
    import datasets

    path = Path(source).expanduser()
    looks_local = path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_local and not path.is_dir():
        raise RvptError(f"{source} is not a folder: give a data set's folder, a hub id, or 'scenes'")
    if path.is_dir() and not any(path.iterdir()):
        raise RvptError(f"{source} is empty: it needs Parquet files, or one subfolder of pictures a class")
    try:
        return datasets.load_dataset(str(path) if looks_local else source, split=split)
    except ValueError as error:
        raise RvptError(f"{source}: {first_line(error)} (--split names one)") from None
    except Exception as error:  # datasets raises a different class for each way a source can be wrong
        raise RvptError(f"{source} cannot be read as a data set: {first_line(error)}") from None


def _labels(values: Sequence[int | None], source: str) -> Tensor:
    for row, value in enumerate(values):
        if value is None or value < 0:  # the hub's way to keep the labels of a test split hidden
            raise RvptError(f"{source}: picture {row} has no label (it is {value}): choose another --split")
    return torch.tensor(values, dtype=torch.int64)


def _captions(dataset: Any, source: str, column: str | None) -> Callable[[int], list[str]] | None:
    if column is not None and column not in dataset.features:
        raise RvptError(f"{source} has no column {column!r}: it has {', '.join(dataset.features)}")
    column = column or next((c for c in CAPTION_COLUMNS if c in dataset.features), None)
    if column is None:
        return None
    entries = dataset[column][:]

    def read(row: int) -> list[str]:
        texts = [entries[row]] if isinstance(entries[row], str) else entries[row]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise RvptError(f"{source}: picture {row} has no caption in column {column!r}: remove it or name another")
        return texts

    return read


def _reader(dataset: Any, column: str, source: str) -> Reader:
    from datasets import Image as ImageFeature

    images = dataset.select_columns([column])
    encoded = images.cast_column(column, ImageFeature(decode=False))

    def one(row: int, size: int) -> np.ndarray:
        try:
            return to_array(images[row][column], size)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError or struct.error
            place = encoded[row][column].get("path") or "no file of its own"
            raise RvptError(
                f"{source}: picture {row} ({place}) cannot be read ({first_line(error)}): mend or remove it"
            ) from None

    def read(rows: Tensor, size: int) -> Tensor:
        with ThreadPoolExecutor(DECODERS) as pool:
            arrays = list(pool.map(lambda row: one(row, size), rows.tolist()))
        return torch.from_numpy(np.stack(arrays))

    return read

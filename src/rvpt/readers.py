"""Data sets by name: Hugging Face datasets, folders of pictures, or the rendered world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from rvpt.data import ImageData, Reader, plain, resize
from rvpt.errors import RvptError, first_line
from rvpt.folders import ImageFolder, read_folder
from rvpt.scenes import GLYPHS, Scenes
from rvpt.store import unnamed

SCENES_SPLITS = {"pretrain": (0, 120_000), "train": (1, 20_000), "test": (2, 2_000)}
LABEL_COLUMNS = ("label", "labels")
CAPTION_COLUMNS = ("captions", "caption", "text", "sentences")
DECODERS = 8
LONGEST = 50  # sides of a resized picture, before only its middle is resized


def load_data(source: str, split: str = "test", *, caption_column: str | None = None) -> ImageData:
    """The data set called `source`: "scenes", a folder (Parquet, or SPLIT/CLASS/images), or a hub id.

    Behind a colon may stand which configuration of the set is meant, or how many scenes. Behind an @ may stand a file
    with other names for its classes, one a line, in the order of its labels.

    Raises:
        RvptError: nothing there, no such split or column, pictures without labels and captions, or names that do not
            fit.
    """
    whole, source = source, unnamed(source)
    if names := whole[len(source) + 1 :]:
        data = load_data(source, split, caption_column=caption_column)
        return replace(data, classes=_class_names(Path(names), data))
    if source.split(":")[0] == "scenes":
        return _scenes(source, split)
    if images := _own_folder(source, split):
        return _folder_data(images, source, caption_column)
    dataset = _open(source, split)
    features, name = dataset.features, Path(source).resolve().name
    image = next((c for c, f in features.items() if type(f).__name__ == "Image"), None)
    if image is None:
        raise RvptError(f"{source} has no image column: it has {', '.join(features)}")
    label = _label_column(features)
    labels = _labels(dataset[label][:], source) if label else None
    classes = tuple(getattr(features[label], "names", ())) if label else ()
    captions = _captions(dataset, source, caption_column)
    return ImageData(name, _reader(dataset, image, source), torch.arange(len(dataset)), labels, classes, captions)


def _own_folder(source: str, split: str) -> ImageFolder | None:
    """The images in class folders that `source` means; None for what `datasets` reads."""
    folder, (_, config) = find_folder(source), _configured(source)
    return read_folder(folder, split) if folder and not config else None


def _folder_data(images: ImageFolder, source: str, caption_column: str | None) -> ImageData:
    if caption_column is not None:
        raise RvptError(f"{source} has no column {caption_column!r}: it has image, label")

    def one(row: int, size: int) -> np.ndarray:
        with Image.open(images.paths[row]) as image:
            return to_array(image, size)

    labels = None if images.labels is None else torch.tensor(images.labels, dtype=torch.int64)
    reader = _parallel(one, images.paths.__getitem__, source)
    return ImageData(Path(source).resolve().name, reader, torch.arange(len(images.paths)), labels, images.classes)


def _label_column(features: Mapping[str, Any]) -> str | None:
    """A column of named classes, first of all one called label; else one called so that holds whole numbers."""
    named = [column for column, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    numbered = [c for c in LABEL_COLUMNS if "int" in str(getattr(features.get(c), "dtype", ""))]
    return min(named, key=lambda c: c not in LABEL_COLUMNS, default=next(iter(numbered), None))


def _class_names(file: Path, data: ImageData) -> tuple[str, ...]:
    """The names in a file, one for each class of the set."""
    try:
        names = [
            line.strip() for line in file.expanduser().read_text(encoding="utf-8-sig").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise RvptError(f"{file}: no class names to be had ({error}): a text file has one a line") from None
    count = len(data.classes) or (0 if data.labels is None else int(data.labels.max()) + 1)
    if len(names) < count or (data.classes and len(names) > count):  # of numbers, the last may have no picture here
        raise RvptError(f"{file} has {len(names)} names, {data.name} {count} classes: give one a line")
    if twice := [name for name, count in Counter(map(plain, names)).items() if count > 1]:
        raise RvptError(f"{file}: two classes are called {twice[0]!r}, so captions could not tell them apart")
    return tuple(names)


def _scenes(source: str, split: str) -> ImageData:
    if split not in SCENES_SPLITS:
        raise RvptError(f"scenes has no split {split!r}: it has {', '.join(SCENES_SPLITS)}")
    seed, count = SCENES_SPLITS[split]
    if ":" in source:
        asked = source.split(":", 1)[1]
        if not asked.isdecimal() or not int(asked):
            raise RvptError(f"{source}: after the colon goes a number of pictures, as in scenes:5000")
        count = int(asked)
    return replace(scenes_data(Scenes.draw(count, seed)), name=source)


def scenes_data(scenes: Scenes) -> ImageData:
    """Rendered scenes as a data set whose classes are the shapes."""

    def read(rows: Tensor, size: int) -> Tensor:
        return resize(torch.from_numpy(scenes.render(rows.numpy())), size)

    attributes = {name: torch.from_numpy(values) for name, values in scenes.attributes.items()}
    rows = torch.arange(len(scenes))
    return ImageData("scenes", read, rows, attributes["shape"], tuple(GLYPHS), scenes.captions, attributes)


def find_folder(source: str) -> Path | None:
    """The folder that a data set's name means, None where it means one of the hub or the rendered world.

    Raises:
        RvptError: it looks like a folder, and there is none, or nothing in it.
    """
    source, _ = _configured(unnamed(source))
    path = Path(source).expanduser()
    if not (path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1):
        return None
    if not path.is_dir():
        raise RvptError(f"{source} is not a folder: give a data set's folder, a hub id, or 'scenes'")
    if not any(path.iterdir()):
        raise RvptError(f"{source} is empty: it needs Parquet files, or one subfolder of images a class")
    return path


def _configured(source: str) -> tuple[str, str | None]:
    """A set's name, and its configuration's where one stands behind a colon, as in owner/name:plain_text."""
    if ":" not in source or Path(source).expanduser().exists():
        return source, None
    name, _, config = source.rpartition(":")
    return name, config


def _open(source: str, split: str) -> Any:
    import datasets

    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False  # before 4, it asks whether to run a set's own code
    folder, (name, config) = find_folder(source), _configured(source)
    try:
        return datasets.load_dataset(str(folder or name), config, split=split)
    except ValueError as error:
        if "Config name is missing" in str(error):
            known = ", ".join(datasets.get_dataset_config_names(str(folder or name)))
            raise RvptError(f"{source} is several sets ({known}): give one as {source}:NAME") from None
        raise RvptError(f"{source}: {first_line(error)} (--split names one)") from None
    except Exception as error:  # datasets raises a different class for each way a source can be wrong
        where = "" if folder else ": no folder of that name here, and on the hub"
        raise RvptError(f"{source} cannot be read as a data set{where}: {first_line(error)}") from None


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

    def place(row: int) -> str:
        return (encoded[row][column] or {}).get("path") or "no file of its own"

    return _parallel(lambda row, size: to_array(images[row][column], size), place, source)


def _parallel(one: Callable[[int, int], np.ndarray], place: Callable[[int], str], source: str) -> Reader:
    """A reader of many rows made of one of a single row; `place` tells where a row that cannot be read comes from."""

    def checked(row: int, size: int) -> np.ndarray:
        try:
            return one(row, size)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError or struct.error
            raise RvptError(
                f"{source}: picture {row} ({place(row)}) cannot be read ({first_line(error)}): mend or remove it"
            ) from None

    def read(rows: Tensor, size: int) -> Tensor:
        with ThreadPoolExecutor(DECODERS) as pool:
            arrays = list(pool.map(lambda row: checked(row, size), rows.tolist()))
        return torch.from_numpy(np.stack(arrays))

    return read


def to_array(image: Image.Image, size: int) -> np.ndarray:
    """A picture of any mode and shape as uint8 (3, size, size), the way CLIP's own preprocessing does it.

    A photograph that says that it lies on its side is turned first.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey: Pillow would clip it, not scale it
        grey = np.asarray(image, dtype=np.float64)
        most = grey.max()
        top = 65535 if image.mode.startswith("I;16") or most > 255 else 1 if image.mode == "F" and most <= 1 else 255
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

"""Where images come from: folders, Hugging Face data sets, images in memory, or the synthetic dataset `scenes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rvpt.data.folders import ImageFolder, read_folder
from rvpt.data.preprocess import resize, to_array, to_image
from rvpt.data.scenes import GLYPHS, Scenes
from rvpt.errors import RvptError, first_line

Reader = Callable[[Tensor, int], Tensor]
"""(rows int64 (B,), side) -> images uint8 (B, 3, side, side)."""
SCENES_SPLITS = {"pretrain": (0, 120_000), "train": (1, 20_000), "test": (2, 2_000)}
LABEL_COLUMNS = ("label", "labels")
CAPTION_COLUMNS = ("captions", "caption", "text", "sentences")
DECODERS = 8


class Source(NamedTuple):
    """The parts of a data set, in the order of `rvpt.Dataset`'s fields."""

    name: str
    reader: Reader
    rows: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    captions_of: Callable[[int], list[str]] | None = None
    attributes: Mapping[str, Tensor] = {}


def scenes_source(source: str, split: str | None) -> Source:
    """The synthetic dataset, as "scenes" or "scenes:5000" (that many of a split).

    Raises:
        RvptError: no such split, or no number after the colon.
    """
    if split not in SCENES_SPLITS:
        known = ", ".join(SCENES_SPLITS)
        raise RvptError(f"scenes has {'no split ' + repr(split) if split else 'several splits'}: choose from {known}")
    seed, count = SCENES_SPLITS[split]
    if ":" in source:
        asked = source.split(":", 1)[1]
        if not asked.isdecimal() or not int(asked):
            raise RvptError(f"{source}: a number of images goes after the colon, as in scenes:5000")
        count = int(asked)
    return wrap_scenes(Scenes.draw(count, seed), source)


def wrap_scenes(scenes: Scenes, name: str = "scenes") -> Source:
    """Rendered scenes as a data set whose classes are the shapes."""

    def read(rows: Tensor, size: int) -> Tensor:
        return resize(torch.from_numpy(scenes.render(rows.numpy())), size)

    attributes = {name: torch.from_numpy(values) for name, values in scenes.attributes.items()}
    rows = torch.arange(len(scenes))
    return Source(name, read, rows, attributes["shape"], tuple(GLYPHS), scenes.captions, attributes)


def folder_source(root: Path, split: str | None) -> Source | None:
    """A folder of image files, as SPLIT/CLASS/0.jpg or CLASS/0.jpg; None if `datasets` should read it."""
    images = read_folder(root, split)
    return None if images is None else _wrap_folder(images, str(root))


def _wrap_folder(images: ImageFolder, source: str) -> Source:
    def one(row: int, size: int) -> NDArray[np.uint8]:
        with Image.open(images.paths[row]) as image:
            return to_array(image, size)

    labels = None if images.labels is None else torch.tensor(images.labels, dtype=torch.int64)
    reader = _parallel(one, images.paths.__getitem__, source)
    return Source(Path(source).resolve().name, reader, torch.arange(len(images.paths)), labels, images.classes)


def wrap_images(images: Sequence[Any], labels: Sequence[int] | None, classes: Sequence[str]) -> Source:
    """Images in memory: PIL images, or tensors (3, H, W), with a class index each.

    Raises:
        RvptError: numbers of images and labels differ, or a label has no class.
    """
    if labels is not None and len(labels) != len(images):
        raise RvptError(f"{len(images)} images and {len(labels)} labels: give one label per image")
    indices = None if labels is None else torch.tensor([int(label) for label in labels], dtype=torch.int64)
    if indices is not None and (wrong := indices[(indices < 0) | (indices >= len(classes))]).numel():
        raise RvptError(f"label {int(wrong[0])} has no class: there are {len(classes)} classes, counted from 0")
    reader = _parallel(lambda row, size: to_array(to_image(images[row]), size), lambda row: "in memory", "images")
    return Source("images", reader, torch.arange(len(images)), indices, tuple(classes))


def wrap_huggingface(dataset: Any, source: str, caption_column: str | None = None) -> Source:
    """One split of a Hugging Face `datasets.Dataset`, with its image, label and caption columns.

    Raises:
        RvptError: there is no image column, an image has no label, or no such caption column.
    """
    features = getattr(dataset, "features", None)
    if not hasattr(dataset, "select_columns") or features is None:
        raise RvptError(f"{type(dataset).__name__} is not one split of a data set: pass dataset['train'], say")
    image = next((c for c, f in features.items() if type(f).__name__ == "Image"), None)
    if image is None:
        raise RvptError(f"{source} has no image column: it has {', '.join(features)}")
    label = _label_column(features)
    labels = _labels(dataset[label][:], source) if label else None
    classes = tuple(getattr(features[label], "names", ())) if label else ()
    captions = _captions(dataset, source, caption_column)
    name = Path(source).resolve().name
    return Source(name, _reader(dataset, image, source), torch.arange(len(dataset)), labels, classes, captions)


def open_huggingface(place: str, config: str | None, split: str | None, *, revision: str | None = None) -> Any:
    """One split of a data set that `datasets` reads: a folder, or one of the hub.

    Raises:
        RvptError: it cannot be read, or has several data sets or splits and none was chosen.
    """
    import datasets

    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False  # before 4, it asks whether to run a data set's own code
    try:
        if split is None:
            split = _only_split(datasets.get_dataset_split_names(place, config, revision=revision), place)
        return datasets.load_dataset(place, config, split=split, revision=revision)
    except RvptError:
        raise
    except ValueError as error:
        if "Config name is missing" in str(error):
            known = ", ".join(datasets.get_dataset_config_names(place))
            raise RvptError(f"{place} holds several data sets ({known}): give one as {place}:NAME") from None
        raise RvptError(f"{place}: {first_line(error)} (split={split})") from None
    except Exception as error:  # datasets raises a different class for each way a source can be wrong
        where = "" if Path(place).is_dir() else ": not a folder here, and on the hub"
        raise RvptError(f"{place} cannot be read as a data set{where}: {first_line(error)}") from None


def _only_split(splits: Sequence[str], place: str) -> str:
    if len(splits) != 1:
        raise RvptError(f"{place} has several splits ({', '.join(splits)}): pass one, as in split={splits[0]}")
    return splits[0]


def _label_column(features: Mapping[str, Any]) -> str | None:
    """A column of named classes, preferably called label; otherwise an integer column called label or labels."""
    named = [column for column, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    numbered = [c for c in LABEL_COLUMNS if "int" in str(getattr(features.get(c), "dtype", ""))]
    return min(named, key=lambda c: c not in LABEL_COLUMNS, default=next(iter(numbered), None))


def _labels(values: Sequence[int | None], source: str) -> Tensor:
    for row, value in enumerate(values):
        if value is None or value < 0:  # how sets on the hub hide the labels of their test split
            raise RvptError(f"{source}: image {row} has no label (it is {value}): choose another split")
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
            raise RvptError(f"{source}: image {row} has no caption in column {column!r}: remove it or name another")
        return texts

    return read


def _reader(dataset: Any, column: str, source: str) -> Reader:
    from datasets import Image as ImageFeature

    images = dataset.select_columns([column])
    encoded = images.cast_column(column, ImageFeature(decode=False))

    def place(row: int) -> str:
        return (encoded[row][column] or {}).get("path") or "no file of its own"

    return _parallel(lambda row, size: to_array(images[row][column], size), place, source)


def _parallel(one: Callable[[int, int], NDArray[np.uint8]], place: Callable[[int], str], source: str) -> Reader:
    """A reader of many rows from a reader of one row; `place` gives the file of a row, for errors."""

    def checked(row: int, size: int) -> NDArray[np.uint8]:
        try:
            return one(row, size)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError or struct.error
            raise RvptError(
                f"{source}: image {row} ({place(row)}) cannot be read ({first_line(error)}): fix or remove it"
            ) from None

    def read(rows: Tensor, size: int) -> Tensor:
        with ThreadPoolExecutor(DECODERS) as pool:
            arrays = list(pool.map(lambda row: checked(row, size), rows.tolist()))
        return torch.from_numpy(np.stack(arrays))

    return read

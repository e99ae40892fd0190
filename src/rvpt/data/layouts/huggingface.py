"""Hugging Face data sets: of the hub, or `datasets` objects in memory; and the columns that any of them has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rvpt.data.hub import asking_hub, missing
from rvpt.data.labels import IMAGE_COLUMNS, LABEL_COLUMNS, caption_column, caption_reader, find_column, to_labels
from rvpt.data.preprocess import to_array, to_image
from rvpt.data.reading import inside, parallel, read_image
from rvpt.data.source import Reader, Source
from rvpt.data.splits import find_split
from rvpt.errors import RvptError, first_line

logger = logging.getLogger("rvpt")
Elsewhere = Callable[[str], Iterable[Any]]
"""A column -> its values in the other splits."""


def wrap_object(found: Any, split: str | None, source: str, caption: str | None = None) -> Source:
    """A `datasets.Dataset`, or a split of a DatasetDict.

    Raises:
        RvptError: something else, no such split, or no image column.
    """
    if isinstance(found, Mapping) and found and all(hasattr(part, "select_columns") for part in found.values()):
        chosen = find_split(f"this {type(found).__name__}", list(found), split)
        return wrap_huggingface(found[chosen], source, caption, others(found, chosen))
    if isinstance(found, list | tuple) or not hasattr(found, "features"):
        raise RvptError(
            f"{type(found).__name__} is not a data set: give a name, a path or a datasets.Dataset, or images in memory "
            "to rvpt.Dataset.from_images"
        )
    if not hasattr(found, "__len__"):
        raise RvptError(f"{type(found).__name__} is read as a stream: load it with streaming=False")
    own = str(getattr(found, "split", None) or "")
    if split is not None and own and own != split:
        raise RvptError(f"this data set is split {own!r}: remove split={split}, or pass that split")
    return wrap_huggingface(found, source, caption)


def others(splits: Mapping[str, Any], chosen: str) -> Elsewhere:
    """The values that a column has in the other splits."""
    return lambda column: [
        value
        for name, part in splits.items()
        if name != chosen and column in part.features
        for value in part.with_format(None)[column][:]
    ]


def wrap_huggingface(
    dataset: Any,
    source: str,
    caption: str | None = None,
    elsewhere: Elsewhere | None = None,
    folder: Path | None = None,
) -> Source:
    """One split of a Hugging Face `datasets.Dataset`, with its image, label and caption columns.

    Args:
        dataset: the split.
        source: what errors call it; its last part is the set's name.
        caption: the column with captions.
        elsewhere: words that are labels in other splits, so that a class has the same index in each.
        folder: where relative paths of images start.

    Raises:
        RvptError: there is no image column, an image has no label, or no such caption column.
    """
    dataset, features = dataset.with_format(None), dataset.features
    column = _image_column(features, source)
    labels, classes = _labels(dataset, source, elsewhere)
    texts = None
    if named := caption_column(features, caption, source):
        texts = caption_reader(dataset[named][:], named, source)
    reader = _reader(dataset, column, source, folder)
    return Source(Path(source).resolve().name, reader, torch.arange(len(dataset)), labels, classes, texts)


def open_hub(place: str, config: str | None, split: str | None, *, revision: str | None = None) -> Any:
    """One split of a data set that `datasets` reads: of the hub, or a folder whose card lists its files.

    Raises:
        RvptError: it cannot be read, or has several data sets or splits and none was chosen.
    """
    import datasets  # noqa: F401 - before the hub is asked, whose silence it would take for a setting and keep

    if Path(place).is_dir():
        return _loaded(place, config, split, revision, "")
    with asking_hub() as silent:
        return _loaded(place, config, split, revision, silent)


def _loaded(place: str, config: str | None, split: str | None, revision: str | None, silent: str) -> Any:
    """One split, as `open_hub`; `silent` says why the hub does not answer, if it does not."""
    import datasets

    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False  # before 4, it asks whether to run a data set's own code
    try:
        if split is None:
            split = find_split(place, datasets.get_dataset_split_names(place, config, revision=revision), None)
        with _quiet_datasets():
            return datasets.load_dataset(place, config, split=split, revision=revision)
    except RvptError:
        raise
    except ValueError as error:
        if "Config name is missing" in str(error):
            known = ", ".join(datasets.get_dataset_config_names(place))
            raise RvptError(f"{place} holds several data sets ({known}): give one as {place}:NAME") from None
        raise RvptError(f"{place}: {first_line(error)} (split={split})") from None
    except Exception as error:  # datasets raises a different class for each way a source can be wrong
        if silent and isinstance(error, ConnectionError):
            raise RvptError(f"{place} cannot be read as a data set: {missing(silent)}") from None
        where = "" if Path(place).is_dir() else ": not a folder here, and on the hub"
        raise RvptError(f"{place} cannot be read as a data set{where}: {first_line(error)}") from None


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Let `datasets` show no progress bars, and restore its setting afterwards."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _image_column(features: Mapping[str, Any], source: str) -> str:
    """The column of images: of type Image, or with a usual name, and preferably both."""
    usual = find_column(features, IMAGE_COLUMNS)
    typed = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if typed:
        return usual if usual in typed else typed[0]
    if usual is None:
        raise RvptError(f"{source} has no image column: it has {', '.join(features)}")
    return usual


def _labels(dataset: Any, source: str, elsewhere: Elsewhere | None) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels and names of classes: a column of named classes, preferably called label; or one with a usual name."""
    features = dataset.features
    named = [column for column, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    usual = find_column(features, LABEL_COLUMNS)
    label = usual if usual in named else next(iter(named), usual)
    if label is None:
        return None, ()
    values: Sequence[Any] = dataset[label][:]
    words = label not in named and any(isinstance(value, str) for value in values)
    labels, classes = to_labels(values, source, list(elsewhere(label)) if words and elsewhere else ())
    if classes and not elsewhere:
        logger.warning("%s: labels are words: its %d classes are those of this split alone", source, len(classes))
    return labels, tuple(features[label].names) if label in named else classes


def _reader(dataset: Any, column: str, source: str, folder: Path | None) -> Reader:
    """A reader of encoded images, of files that they name, or of arrays."""
    images = dataset.select_columns([column])
    if type(dataset.features[column]).__name__ == "Image":
        from datasets import Image as ImageFeature

        images = images.cast_column(column, ImageFeature(decode=False))

    def one(row: int, size: int) -> NDArray[np.uint8]:
        return _decode(images[row][column], folder, size)

    def place(row: int) -> str:
        value = images[row][column]
        name = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
        return name or "no file of its own"

    return parallel(one, place, source)


def _decode(value: Any, folder: Path | None, size: int) -> NDArray[np.uint8]:
    """An image of a column: bytes, a path, a mapping with either, or nested lists of numbers."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        value = inside(folder or "", value)
    if isinstance(value, bytes | str):
        return read_image(value, size)
    if value is None:
        raise RvptError("it has no image")
    return to_array(to_image(np.asarray(value, dtype=np.uint8) if isinstance(value, list) else value), size)

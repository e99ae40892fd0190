"""Loading data sets by name, for `rvpt.load_data`, recipes and `--data`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.data.classnames import name_classes
from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import configured, find_place, is_scenes, unnamed
from rvpt.data.layouts import read_place
from rvpt.data.layouts.huggingface import open_hub, wrap_huggingface, wrap_object
from rvpt.data.layouts.synthetic import scenes_source
from rvpt.data.mix import mix
from rvpt.data.shifts import shifted
from rvpt.data.skip import skip_unreadable
from rvpt.data.source import Asked, Source
from rvpt.data.splits import TEST
from rvpt.data.text import PROXIES
from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.spec import OnError


def load_data(
    source: Any,
    split: str | None = None,
    *,
    caption_column: str | None = None,
    revision: str | None = None,
    on_error: OnError = "stop",
    shift: str | None = None,
    report: Report = silent,
) -> Dataset:
    """The data set called `source`.

    Args:
        source: "scenes"; a folder or file of any layout, such as images as SPLIT/CLASS/0.jpg, Parquet, WebDataset tars
            or a CSV file of image paths; or a hub id. NAME:CONFIG chooses one of several data sets, scenes:5000 that
            many scenes. NAME@FILE reads the class names from a file, one name per line, in the order of the labels.
            A `datasets.Dataset` or `DatasetDict` is accepted too.
        split: required if the source has several.
        caption_column: the column with captions; by default one called captions, caption, text, title or sentences.
        revision: branch, tag or commit of a hub data set.
        on_error: "skip" leaves out images that cannot be read: all are read once now, a warning lists those that
            cannot be, and `skipped` has them. With "stop" the first batch with such an image raises an error.
        shift: change of style of all images, by its name.
        report: called while images are checked.

    Raises:
        RvptError: no such data set, split, column or shift; several splits and none chosen; or class names that do not
            fit.
    """
    if on_error not in ("stop", "skip"):
        raise RvptError(f"on_error={on_error!r}: choose from stop, skip")
    if isinstance(source, Dataset):
        if split is not None:
            raise RvptError(f"{source.name} is loaded already: remove split={split}")
        data = source
    elif isinstance(source, str | Path):
        if not str(source).strip():
            raise RvptError("the name of the data set is empty: give a folder, a hub id, or 'scenes'")
        data = Dataset(*_named(source, Asked(split, None, caption_column), revision))
    else:
        data = Dataset(*wrap_object(source, split, "dataset", caption_column))
    data = skip_unreadable(data, report) if on_error == "skip" else data
    return data if shift is None else shifted(data, shift)


def may_have_test_images(source: str) -> bool:
    """Whether a data set has a split test; one that is not on this machine is not asked, and may have one."""
    if find_place(source) is None:
        return True
    try:
        load_data(source, TEST)
    except RvptError:
        return False
    return True


def _named(source: str | Path, asked: Asked, revision: str | None) -> Source:
    """The parts of the data set of a name, with the class names of a file if there is one."""
    name = unnamed(str(source))
    found = _open(name, asked, revision, local=isinstance(source, Path))
    if not (names := str(source)[len(name) + 1 :]):
        return found
    labels, classes = name_classes(found.labels, found.classes, Path(names), found.name)
    return found._replace(labels=labels, classes=classes)


def _open(source: str, asked: Asked, revision: str | None, *, local: bool) -> Source:
    if is_scenes(source) and not local:
        return scenes_source(source, asked.split)
    place, (name, config) = find_place(source, local=local), configured(source)
    if place:
        return read_place(place, Asked(asked.split, config, asked.caption_column))
    return wrap_huggingface(open_hub(name, config, asked.split, revision=revision), name, asked.caption_column)


def load_captioned(
    source: str,
    split: str | None,
    caption_column: str | None = None,
    *,
    on_error: OnError = "stop",
    shift: str | None = None,
) -> Dataset:
    """A data set with its captions, or with captions made from its labels.

    Raises:
        RvptError: it has neither.
    """
    data = load_data(source, split, caption_column=caption_column, on_error=on_error, shift=shift)
    if not data.captions_of and data.labels is None:
        raise RvptError(f"{source} has neither captions nor class labels: name the column as caption_column=NAME")
    return data if data.captions_of else data.with_templates(PROXIES)


def load_mixed(
    sources: Sequence[str], split: str | None, caption_column: str | None = None, *, on_error: OnError = "stop"
) -> Dataset:
    """Several captioned data sets as one."""
    return mix([load_captioned(source, split, caption_column, on_error=on_error) for source in sources])


def load_labeled(source: str, split: str | None, *, on_error: OnError = "stop", shift: str | None = None) -> Dataset:
    """A data set with class labels.

    Raises:
        RvptError: it has none.
    """
    data = load_data(source, split, on_error=on_error, shift=shift)
    data.labeled()
    return data

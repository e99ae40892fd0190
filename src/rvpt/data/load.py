"""Loading data sets by name, for `rvpt.load_data`, recipes and `--data`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rvpt.data.dataset import Dataset, mix
from rvpt.data.names import configured, find_folder, unnamed
from rvpt.data.sources import scenes_source
from rvpt.data.text import PROXIES, plain
from rvpt.errors import RvptError


def load_data(
    source: str, split: str | None = None, *, caption_column: str | None = None, revision: str | None = None
) -> Dataset:
    """The data set called `source`.

    Args:
        source: "scenes"; a folder, of images as SPLIT/CLASS/0.jpg or CLASS/0.jpg or of Parquet files; or a hub id.
            NAME:CONFIG chooses one of several data sets, scenes:5000 that many scenes. NAME@FILE reads the class
            names from a file, one name per line, in the order of the labels.
        split: required if the source has several.
        caption_column: the column with captions; by default one called captions, caption, text or sentences.
        revision: branch, tag or commit of a hub data set.

    Raises:
        RvptError: no such data set, split or column; several splits and none chosen; or class names that do not fit.
    """
    whole, source = source, unnamed(source)
    if names := whole[len(source) + 1 :]:
        data = load_data(source, split, caption_column=caption_column, revision=revision)
        return replace(data, classes=_class_names(Path(names), data))
    if source.split(":")[0] == "scenes":
        return Dataset(*scenes_source(source, split))
    folder, (name, config) = find_folder(source), configured(source)
    if folder:
        return Dataset.from_folder(folder, split, config=config, caption_column=caption_column)
    return Dataset.from_hub(name, split, config=config, caption_column=caption_column, revision=revision)


def load_captioned(
    source: str, split: str | None, caption_column: str | None = None, *, templates: Sequence[str] = PROXIES
) -> Dataset:
    """A data set with its captions, or with captions made from its labels.

    Raises:
        RvptError: it has neither.
    """
    data = load_data(source, split, caption_column=caption_column)
    if not data.captions_of and data.labels is None:
        raise RvptError(f"{source} has neither captions nor class labels: name the column as caption_column=NAME")
    return data if data.captions_of else data.with_templates(templates)


def load_mixed(sources: Sequence[str], split: str | None, caption_column: str | None = None) -> Dataset:
    """Several captioned data sets as one."""
    return mix([load_captioned(source, split, caption_column) for source in sources])


def load_labeled(source: str, split: str | None) -> Dataset:
    """A data set with class labels.

    Raises:
        RvptError: it has none.
    """
    data = load_data(source, split)
    data.labeled()
    return data


def _class_names(file: Path, data: Dataset) -> tuple[str, ...]:
    """The class names in a file, one for each class of the set."""
    try:
        names = [
            line.strip() for line in file.expanduser().read_text(encoding="utf-8-sig").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise RvptError(f"{file} cannot be read ({error}): give a text file with one class name per line") from None
    count = len(data.classes) or (0 if data.labels is None else int(data.labels.max()) + 1)
    if len(names) < count or (data.classes and len(names) > count):  # the last number may have no image in this split
        raise RvptError(f"{file} has {len(names)} names, {data.name} {count} classes: give one name per line")
    if twice := [name for name, count in Counter(map(plain, names)).items() if count > 1]:
        raise RvptError(f"{file}: two classes are called {twice[0]!r}: give each its own name")
    return tuple(names)

"""Data sets that `datasets` wrote with save_to_disk: one split, or a DatasetDict of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rvpt.data.layouts.huggingface import others, wrap_huggingface
from rvpt.data.source import Asked, Layout, Source
from rvpt.data.splits import TRAIN, find_split
from rvpt.errors import RvptError, first_line
from rvpt.files import read_json

ONE, SEVERAL = "state.json", "dataset_dict.json"


def recognizes(place: Path) -> bool:
    """Whether a folder was written by save_to_disk."""
    return any((place / name).is_file() for name in (ONE, SEVERAL))


def read(place: Path, asked: Asked) -> Source:
    """A split. One that was saved alone has the name it had, or else counts as split train.

    Raises:
        RvptError: no such split, or files that are missing or outside the folder.
    """
    if (place / SEVERAL).is_file():
        splits = {name: place / name for name in read_json(place / SEVERAL)["splits"]}
    else:
        splits = {str(read_json(place / ONE).get("_split") or TRAIN): place}
    for folder in splits.values():
        _check_files(folder)
    loaded = {name: _load(folder) for name, folder in splits.items()}
    split = find_split(place, list(splits), asked.split)
    return wrap_huggingface(loaded[split], str(place), asked.caption_column, others(loaded, split), place)


LAYOUT = Layout("what `datasets` wrote with save_to_disk", recognizes, read)


def _check_files(folder: Path) -> None:
    """Refuse names of files that leave the folder."""
    for file in read_json(folder / ONE).get("_data_files", []):
        if Path(file["filename"]).name != file["filename"]:
            raise RvptError(f"{folder / ONE} names a file outside the folder: {file['filename']}")


def _load(folder: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets and pyarrow raise many classes
        raise RvptError(f"{folder} cannot be read: {first_line(error)}") from None

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
        splits = {str(name): place / str(name) for name in _listed(place / SEVERAL, "splits")}
    else:
        splits = {str(_facts(place / ONE).get("_split") or TRAIN): place}
    for folder in splits.values():
        _check_files(folder)
    loaded = {name: _load(folder) for name, folder in splits.items()}
    split = find_split(place, list(splits), asked.split)
    return wrap_huggingface(loaded[split], str(place), asked.caption_column, others(loaded, split), place)


LAYOUT = Layout("what `datasets` wrote with save_to_disk", recognizes, read)


def _check_files(folder: Path) -> None:
    """Refuse names of files that leave the folder."""
    for file in _listed(folder / ONE, "_data_files"):
        name = file.get("filename") if isinstance(file, dict) else None
        if not isinstance(name, str):
            raise _damaged(folder / ONE)
        if Path(name).name != name:
            raise RvptError(f"{folder / ONE} names a file outside the folder: {name}")


def _facts(file: Path) -> dict[str, Any]:
    facts = read_json(file)
    if not isinstance(facts, dict):
        raise _damaged(file)
    return facts


def _listed(file: Path, name: str) -> list[Any]:
    """A list in a file of `datasets`."""
    found = _facts(file).get(name)
    if not isinstance(found, list) or not found:
        raise _damaged(file)
    return found


def _damaged(file: Path) -> RvptError:
    return RvptError(f"{file} is damaged, or of no images: save the data set again")


def _load(folder: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets and pyarrow raise many classes
        raise RvptError(f"{folder} cannot be read: {first_line(error)}") from None

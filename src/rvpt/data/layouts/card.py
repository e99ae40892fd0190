"""Folders whose README.md lists the files of each split, as data sets of the hub do: `datasets` reads them."""

from __future__ import annotations

from pathlib import Path

from rvpt.data.layouts.huggingface import open_hub, wrap_huggingface
from rvpt.data.source import Asked, Layout, Source

KEYS = ("data_files:", "configs:", "data_dir:")


def recognizes(place: Path) -> bool:
    """Whether a folder's card lists its files."""
    card = place / "README.md"
    if not card.is_file():
        return False
    header = card.read_text(encoding="utf-8", errors="replace").split("\n---")[0]
    return any(key in header for key in KEYS)


def read(place: Path, asked: Asked) -> Source:
    """One split of one of its data sets."""
    dataset = open_hub(str(place), asked.config, asked.split)
    return wrap_huggingface(dataset, str(place), asked.caption_column, folder=place)


LAYOUT = Layout("a folder whose README.md lists the files of each split, as on the hub", recognizes, read)

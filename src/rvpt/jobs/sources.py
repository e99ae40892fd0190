"""What several jobs need: data by their names, and where a run keeps its state."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.attacks.poison import PROXIES
from rvpt.checkpoint import Checkpoint
from rvpt.data import ImageData, mix
from rvpt.progress import Report, silent
from rvpt.readers import load_data
from rvpt.store import refuse_existing


def load_captioned(
    source: str, split: str, caption_column: str | None = None, *, templates: Sequence[str] = PROXIES
) -> ImageData:
    """A data set with its captions, or with captions made of its labels."""
    data = load_data(source, split, caption_column=caption_column)
    return data if data.captions_of else data.with_templates(templates)


def load_mixed(
    sources: Sequence[str], split: str, size: int, caption_column: str | None = None, report: Report = silent
) -> ImageData:
    """Several captioned data sets as one, every picture read once and kept in memory."""
    mixed = mix([load_captioned(source, split, caption_column) for source in sources])
    return mixed.cached(size, report)


def labelled_data(source: str, split: str) -> ImageData:
    """A data set to measure on; one without labels is refused before any work is done."""
    data = load_data(source, split)
    data.labelled()
    return data


def open_checkpoint(out: Path, key: dict[str, Any], *, resume: bool, force: bool) -> Checkpoint:
    """Where a run towards `out` keeps its state; refuses early what could not be written in the end."""
    refuse_existing(out, force=force)
    folder = out.parent / f"{out.name}.run"
    if force and not resume:
        shutil.rmtree(folder, ignore_errors=True)
    checkpoint = Checkpoint(folder, key, resume)
    checkpoint.check()
    return checkpoint


def drop(checkpoint: Checkpoint) -> None:
    shutil.rmtree(checkpoint.folder, ignore_errors=True)

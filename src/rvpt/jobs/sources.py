"""What several jobs need: data by their names, and where a run keeps its state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.attacks.poison import PROXIES
from rvpt.checkpoint import Checkpoint
from rvpt.data import ImageData, mix
from rvpt.errors import RvptError
from rvpt.readers import load_data
from rvpt.store import refuse_existing, refuse_source


def load_captioned(
    source: str, split: str, caption_column: str | None = None, *, templates: Sequence[str] = PROXIES
) -> ImageData:
    """A data set with its captions, or with captions made of its labels."""
    data = load_data(source, split, caption_column=caption_column)
    if not data.captions_of and data.labels is None:
        raise RvptError(f"{source} has neither captions nor class labels: --caption-column names a column of captions")
    return data if data.captions_of else data.with_templates(templates)


def load_mixed(sources: Sequence[str], split: str, caption_column: str | None = None) -> ImageData:
    """Several captioned data sets as one."""
    return mix([load_captioned(source, split, caption_column) for source in sources])


def labeled_data(source: str, split: str) -> ImageData:
    """A data set to measure on; one without labels is refused before any work is done."""
    data = load_data(source, split)
    data.labeled()
    return data


def open_checkpoint(
    out: Path, key: dict[str, Any], reads: Sequence[str] = (), *, resume: bool, force: bool
) -> Checkpoint:
    """Where a run towards `out` keeps its state; refuses early what could not be written in the end.

    Args:
        reads: folders that the run reads, which must not be replaced by what it makes.
        force: `out` may be replaced in the end, and the state of another run at once, unless it is to be resumed.
    """
    refuse_source(out, reads)
    refuse_existing(out, force=force)
    checkpoint = Checkpoint(out.parent / f"{out.name}.run", key, resume)
    if force and not resume:
        checkpoint.drop()
    else:
        checkpoint.check()
    return checkpoint

"""Where a run keeps its state and what it must not overwrite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rvpt.artifacts import refuse_existing
from rvpt.data.names import unnamed
from rvpt.errors import RvptError
from rvpt.training.checkpoint import Checkpoint


def refuse_source(target: Path, sources: Iterable[str]) -> None:
    """Fail early if writing `target` would replace a folder that is read.

    Raises:
        RvptError: it would.
    """
    for source in sources:
        place = Path(unnamed(source)).expanduser().resolve()
        if place.exists() and target.resolve() in (place, *place.parents):
            raise RvptError(f"{target} holds {source}, which is read: choose another folder")


def open_checkpoint(
    target: Path, key: dict[str, Any], reads: Sequence[str] = (), *, resume: bool, overwrite: bool
) -> Checkpoint:
    """Where a run towards `target` keeps its state; fails early where the result could not be written in the end.

    Args:
        target: what the run writes.
        key: what tells the run from others.
        reads: folders that the run reads, which must not be replaced by what it writes.
        resume: continue an interrupted run.
        overwrite: `target` may be replaced in the end, and the state of another run at once, unless it is resumed.

    Raises:
        RvptError: one of these is not possible.
    """
    refuse_source(target, reads)
    refuse_existing(target, overwrite=overwrite)
    checkpoint = Checkpoint(target.parent / f"{target.name}.run", key, resume)
    if overwrite and not resume:
        checkpoint.drop()
    else:
        checkpoint.check()
    return checkpoint

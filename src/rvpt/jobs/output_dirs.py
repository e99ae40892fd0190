"""Where a run keeps its state, and what it must not overwrite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rvpt.artifacts import refuse_existing
from rvpt.data.identifiers import unnamed
from rvpt.errors import RvptError
from rvpt.training.checkpoint import Checkpoint


def refuse_source(target: Path, sources: Iterable[str]) -> None:
    """Fail early if writing `target` would replace a folder that is read.

    Raises:
        RvptError: `target` is, or holds, one of the sources.
    """
    for source in sources:
        place = Path(unnamed(source)).expanduser().resolve()
        if place.exists() and target.resolve() in (place, *place.parents):
            raise RvptError(f"{target} holds {source}, which this command reads: choose another folder")


def refuse_output(target: Path, reads: Iterable[str], *, overwrite: bool) -> None:
    """Fail early if the folder `target` could not be written in the end.

    Raises:
        RvptError: as `refuse_source` for what is read, and as `refuse_existing`.
    """
    refuse_source(target, reads)
    refuse_existing(target, overwrite=overwrite)


def open_checkpoint(
    target: Path, key: dict[str, Any], reads: Sequence[str] = (), *, resume: bool, overwrite: bool
) -> Checkpoint:
    """The checkpoint of a run that writes `target`; fails early if the result could not be written in the end.

    Args:
        target: the folder to write.
        key: settings that distinguish the run from others.
        reads: folders that the run reads, which must not be replaced.
        resume: continue an interrupted run.
        overwrite: replace an artifact at `target` in the end, and the state of another run now, unless it is resumed.

    Raises:
        RvptError: `target` cannot be written, or the state of another run is there.
    """
    refuse_output(target, reads, overwrite=overwrite)
    checkpoint = Checkpoint(target.parent / f"{target.name}.run", key, resume)
    if overwrite and not resume:
        checkpoint.drop()
    else:
        checkpoint.check()
    return checkpoint

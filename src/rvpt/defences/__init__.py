"""Defences: a suspect CLIP and a few clean pictures in, a Cleaned out. A new defence goes into DEFENCES."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import (
    CleanClipSpec,
    ContrastiveSpec,
    FinetuneSpec,
    ParSpec,
    ProbeSpec,
    RVPTSpec,
    TrainSpec,
    VPTSpec,
)
from rvpt.data import ImageData
from rvpt.defences.captions import cleanclip, contrastive, par
from rvpt.defences.cleaned import Cleaned, load_model
from rvpt.defences.finetune import finetune
from rvpt.defences.probe import probe
from rvpt.defences.tuning import tune
from rvpt.errors import RvptError
from rvpt.progress import Report, silent


@dataclass(frozen=True)
class Defence:
    """One way to clean: its settings, and what does it.

    `pairs`: it learns from so many captioned pictures, the number published, where none is asked for; 0 if it learns
    from labels. `head`: it ends in a classifier of the classes that it learnt, which knows no others and no texts.
    """

    Spec: type[TrainSpec]
    run: Callable[[Clip, ImageData, Any, Checkpoint | None, Report], Cleaned]
    pairs: int = 0
    head: bool = False

    @property
    def captions(self) -> bool:
        """Whether it learns from captions."""
        return self.pairs > 0

    @property
    def draws(self) -> tuple[str, ...]:
        """The settings by which its clean pictures are drawn from a set; it has no use for those of the others."""
        return ("pairs", "caption_column") if self.captions else ("shots", "without")


DEFENCES = {
    "rvpt": Defence(RVPTSpec, tune),
    "vpt": Defence(VPTSpec, tune),
    "probe": Defence(ProbeSpec, probe, head=True),
    "finetune": Defence(FinetuneSpec, finetune, head=True),
    "contrastive": Defence(ContrastiveSpec, contrastive, pairs=100_000),
    "cleanclip": Defence(CleanClipSpec, cleanclip, pairs=100_000),
    "par": Defence(ParSpec, par, pairs=250_000),
}

__all__ = ["DEFENCES", "Cleaned", "clean", "defence", "load_model"]


def defence(name: str) -> Defence:
    """The defence called `name`.

    Raises:
        RvptError: there is none.
    """
    if name not in DEFENCES:
        raise RvptError(f"no defence {name!r}: there are {', '.join(DEFENCES)}")
    return DEFENCES[name]


def clean(
    clip: Clip,
    data: ImageData,
    spec: TrainSpec | None = None,
    *,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> Cleaned:
    """Clean a suspect model by the defence that a spec belongs to: RVPT with the paper's settings by default.

    Args:
        clip: the suspect model; it is not changed.
        data: clean pictures, all of them used. With labels for "rvpt", "vpt", "probe" and "finetune", where classes
            without a picture are left out of the loss; with captions for the others.
        spec: RVPTSpec, VPTSpec, ProbeSpec, FinetuneSpec, ContrastiveSpec, CleanClipSpec or ParSpec.

    Raises:
        RvptError: no Clip, a spec that is no defence's, no pictures, fewer than two classes, a block that the model
            does not have, or a loss that is not finite.
    """
    spec = spec or RVPTSpec()
    name = next((name for name, entry in DEFENCES.items() if entry.Spec is type(spec)), None)
    if name is None:
        raise RvptError(f"{type(spec).__name__} holds no defence's settings: take RVPTSpec, or another's")
    if not isinstance(clip, Clip):
        raise RvptError(f"{type(clip).__name__} is no Clip: give the suspect model itself, as rvpt.load has it")
    if not len(data):
        raise RvptError(f"{data.name} has no pictures to learn from")
    start = time.monotonic()
    cleaned = DEFENCES[name].run(clip, data, spec, checkpoint, report)
    cleaned.facts.update(
        defence="vpt" if isinstance(spec, RVPTSpec) and not spec.alpha else name,
        spec=spec.model_dump(),
        base_model=clip.source,
        base_sha256=clip.hash(),
        classes=list(data.classes),
        pictures=len(data),
        seconds=time.monotonic() - start + (checkpoint.earlier if checkpoint else 0.0),
    )
    return cleaned

"""Defenses: a suspect CLIP and a few clean images in, a Cleaned out. A new defense goes into DEFENSES."""

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
from rvpt.defenses.captions import cleanclip, contrastive, par
from rvpt.defenses.cleaned import Cleaned, load_model
from rvpt.defenses.finetune import finetune
from rvpt.defenses.probe import probe
from rvpt.defenses.tuning import tune
from rvpt.errors import RvptError
from rvpt.progress import Report, silent


@dataclass(frozen=True)
class Defense:
    """One way to clean: its settings, and what does it.

    `pairs`: it learns from so many captioned images, the number published, where none is asked for; 0 if it learns
    from labels. `head`: it ends in a classifier of the classes that it learned, which knows no others and no texts.
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
        """The settings by which its clean images are drawn from a set; it has no use for those of the others."""
        return ("pairs", "caption_column") if self.captions else ("shots", "without")


DEFENSES = {
    "rvpt": Defense(RVPTSpec, tune),
    "vpt": Defense(VPTSpec, tune),
    "probe": Defense(ProbeSpec, probe, head=True),
    "finetune": Defense(FinetuneSpec, finetune, head=True),
    "contrastive": Defense(ContrastiveSpec, contrastive, pairs=100_000),
    "cleanclip": Defense(CleanClipSpec, cleanclip, pairs=100_000),
    "par": Defense(ParSpec, par, pairs=250_000),
}

__all__ = ["DEFENSES", "Cleaned", "clean", "defense", "load_model"]


def defense(name: str) -> Defense:
    """The defense called `name`.

    Raises:
        RvptError: there is none.
    """
    if name not in DEFENSES:
        raise RvptError(f"no defense {name!r}: there are {', '.join(DEFENSES)}")
    return DEFENSES[name]


def clean(
    clip: Clip,
    data: ImageData,
    spec: TrainSpec | None = None,
    *,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> Cleaned:
    """Clean a suspect model by the defense that a spec belongs to: RVPT with the paper's settings by default.

    Args:
        clip: the suspect model; it is not changed.
        data: clean images, all of them used. With labels for "rvpt", "vpt", "probe" and "finetune", where classes
            without a image are left out of the loss; with captions for the others.
        spec: RVPTSpec, VPTSpec, ProbeSpec, FinetuneSpec, ContrastiveSpec, CleanClipSpec or ParSpec.

    Raises:
        RvptError: no Clip, a spec that is no defense's, no images, fewer than two classes, a block that the model
            does not have, or a loss that is not finite.
    """
    spec = spec or RVPTSpec()
    name = next((name for name, entry in DEFENSES.items() if entry.Spec is type(spec)), None)
    if name is None:
        raise RvptError(f"{type(spec).__name__} holds no defense's settings: take RVPTSpec, or another's")
    if not isinstance(clip, Clip):
        raise RvptError(f"{type(clip).__name__} is no Clip: give the suspect model itself, as rvpt.load has it")
    if not len(data):
        raise RvptError(f"{data.name} has no images to learn from")
    start = time.monotonic()
    cleaned = DEFENSES[name].run(clip, data, spec, checkpoint, report)
    cleaned.facts.update(
        defense="vpt" if isinstance(spec, RVPTSpec) and not spec.alpha else name,
        spec=spec.model_dump(),
        base_model=clip.source,
        base_sha256=clip.hash(),
        classes=list(data.classes),
        images=len(data),
        seconds=time.monotonic() - start + (checkpoint.earlier if checkpoint else 0.0),
    )
    return cleaned

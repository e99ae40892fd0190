"""The contract of a defense, and how one is chosen and run."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from rvpt.data.dataset import Dataset
from rvpt.defenses import DEFENSES
from rvpt.defenses.unlabeled import LABELS, PREDICTED, labeled_as, settle
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.placement import refuse_half
from rvpt.presets import CleanPreset, choose_preset
from rvpt.progress import Report, shows_bar, silent
from rvpt.spec import TrainSpec
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.loop import fit
from rvpt.training.stages import Stages
from rvpt.training.stepper import refuse_precision

logger = logging.getLogger("rvpt")


@dataclass(frozen=True)
class Run:
    """Where a training run keeps its state, and where it reports its progress."""

    checkpoint: Checkpoint | None = None
    report: Report = silent

    def stages(self, device: torch.device) -> Stages:
        """What comes before the first step, kept with the run's state if it has one."""
        return self.checkpoint.stages(device) if self.checkpoint else Stages(None)


class Defense(ABC):
    """One way to clean a model. A subclass defines `run`.

    `summary` is its line in `--help`, `rvpt defenses` and the docs; it begins with what is trained.
    `Spec`: its settings; their defaults are preset "paper". `small`: what preset "small" changes; `coop`: what preset
    "coop" changes, for those that have it.
    `learns_from`: "labels" (a few images per class) or "captions" (image-caption pairs).
    `published_pairs`: with "captions", the number of pairs to use by default.
    `has_head`: whether the cleaned model has its own classifier, which knows only the classes it was trained on.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Spec: ClassVar[type[TrainSpec]]
    small: ClassVar[Mapping[str, Any]] = {}
    coop: ClassVar[Mapping[str, Any]] = {}
    learns_from: ClassVar[Literal["labels", "captions"]] = "labels"
    published_pairs: ClassVar[int] = 0
    has_head: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        """Clean a suspect model.

        Args:
            clip: the suspect, which must not be changed.
            data: clean images, all to be used, with labels or captions as in `learns_from`.
            spec: a `Spec` of this defense.
            run: its checkpoint and report are for `rvpt.training.loop.fit`.

        Returns:
            The cleaned model, with `history` (what `fit` returns) and `trained_parameters` in its facts.
        """

    @classmethod
    def refuse(cls, clip: Clip, data: Dataset, spec: Any) -> None:
        """Refuse what does not fit, before anything is computed; a subclass may refuse more. Arguments as for `run`.

        Raises:
            RvptError: weights of 16 bits, a precision that the device lacks, or fewer than two classes with labels.
        """
        refuse_half(clip.model.dtype)
        refuse_precision(spec.precision, clip.device)
        labels = getattr(spec, LABELS, PREDICTED)
        if labels != PREDICTED and data.labels is None:
            raise RvptError(f"{LABELS}={labels}: there are none to use: pass {LABELS}={PREDICTED}")
        if cls.learns_from == "labels" and data.labels is not None:
            data.present()

    @classmethod
    def presets(cls) -> dict[str, Mapping[str, Any]]:
        """What each preset changes of the defaults."""
        return {"paper": {}, "small": cls.small, **({"coop": cls.coop} if cls.coop else {})}

    @classmethod
    def settings(cls, preset: CleanPreset, clip: Clip, /, **changes: Any) -> Any:
        """The spec of a preset with some settings changed; `clip` is the model that "auto" chooses for.

        Raises:
            RvptError: a preset or setting that the defense does not have, or a value out of range.
        """
        chosen = choose_preset(preset, clip.parameter_count(), cls.presets())
        return cls.Spec(**{**cls.presets()[chosen], **changes})

    @classmethod
    def learns(cls) -> str:
        """What it learns from, in words: a defense with a setting `labels` can do without them."""
        return f"{cls.learns_from}, or none" if LABELS in cls.Spec.model_fields else cls.learns_from

    @classmethod
    def draws(cls) -> tuple[str, ...]:
        """The options that choose its clean images from a data set."""
        return ("num_pairs", "caption_column") if cls.learns_from == "captions" else ("shots", "without")


def refuse_missing_block(first_block: int, blocks: int) -> None:
    """Refuse a first block that a model with so many blocks does not have.

    Raises:
        RvptError: it does not.
    """
    if first_block >= blocks:
        raise RvptError(f"first_block={first_block} does not exist: the blocks are 0 to {blocks - 1}")


def train_copy(
    task: nn.Module, copy: Clip, data: Dataset, spec: TrainSpec, run: Run, *, averaged: float = 0.0
) -> Cleaned:
    """Train a task that holds a copy of the suspect, and return the copy as a Cleaned with its own weights.

    `averaged` is the share of the steps that `fit` averages the weights over.
    """
    trained = sum(p.numel() for p in copy.parameters() if p.requires_grad)
    history = fit(task, len(data), spec, checkpoint=run.checkpoint, report=run.report, averaged=averaged)
    facts = {"history": history, "trained_parameters": trained}
    return Cleaned(copy.eval().requires_grad_(False), facts=facts, own_weights=True)


def defense_of(spec: TrainSpec) -> type[Defense]:
    """The defense that a spec belongs to.

    Raises:
        RvptError: there is none.
    """
    for defense in DEFENSES.values():
        if defense.Spec is type(spec):
            return defense
    raise RvptError(f"{type(spec).__name__} is not the spec of a defense: pass a RVPTSpec, say")


@shows_bar("clean")
def clean(
    model: Clip,
    data: Dataset | Sequence[Any],
    defense: str | TrainSpec = "rvpt",
    *,
    classes: Sequence[str] | None = None,
    preset: CleanPreset = "auto",
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
    **settings: Any,
) -> Cleaned:
    """Clean a suspect model with a defense.

    Args:
        model: the suspect; it is not changed.
        data: clean images, all of them used, with labels or captions as the defense needs. `Dataset.few_shot(16)` draws
            16 per class; classes without an image are left out of the loss. For defenses that do without labels, images
            in memory will do.
        defense: a name (`rvpt defenses` lists them), or a spec with all settings.
        classes: names of the classes, for a defense that does without labels; labels are not used then.
        preset: "paper", "small", "coop", or "auto", which chooses by the size of the model.
        checkpoint: where to keep the state of the run.
        report: called as report(step, total, values) after each step.
        settings: changes of the preset, such as alpha=1.0.

    Raises:
        RvptError: an unknown defense, a setting that does not fit, no images, fewer than two classes, weights of 16
            bits, or a loss that became infinite or NaN.
    """
    if not isinstance(model, Clip):
        raise RvptError(f"{type(model).__name__} is not a Clip: pass the suspect itself, as rvpt.load returns it")
    data = data if isinstance(data, Dataset) else Dataset.from_images(data)
    if not len(data):
        raise RvptError(f"{data.name} has no images to train on")
    if isinstance(defense, str):
        kind = DEFENSES.find(defense)
        spec, data = settle(kind, model, data, classes, preset, settings)
    elif settings:
        raise RvptError(f"{next(iter(settings))}: set it in the spec, which has all settings")
    else:
        kind, spec = defense_of(defense), defense
        data = labeled_as(kind, spec, data, classes)
    kind.refuse(model, data, spec)
    return clean_with(kind, model, data, spec, Run(checkpoint, report))


def clean_with(kind: type[Defense], model: Clip, data: Dataset, spec: TrainSpec, run: Run) -> Cleaned:
    """Run a defense on images that it does not refuse, and record how the model was made.

    Raises:
        RvptError: a loss that became infinite or NaN.
    """
    start = time.monotonic()
    cleaned = kind.run(model, data, spec, run)
    _warn_of_chance(cleaned.facts, data)
    cleaned.facts = {
        "defense": kind.name,
        "spec": spec.model_dump(mode="json"),
        "base_model": model.source,
        "base_revision": model.revision,
        "base_sha256": model.hash(),
        "classes": list(data.classes),
        "images": len(data),
        "seconds": time.monotonic() - start + (run.checkpoint.earlier if run.checkpoint else 0.0),
        **cleaned.facts,
    }
    return cleaned


def _warn_of_chance(facts: Mapping[str, Any], data: Dataset) -> None:
    """Warn if the cross-entropy of the last epoch is above log K, that of guessing one of the K classes."""
    loss = facts["history"][-1].get("CE", 0.0) if facts.get("history") else 0.0
    if loss and loss > (chance := math.log(len(data.present()[0]))):
        logger.warning(
            "CE on the labels is %.2f in the last epoch, and guessing has %.2f: the cleaned model may be of no use; "
            "raise epochs, or lower lr",
            loss,
            chance,
        )

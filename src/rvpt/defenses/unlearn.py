"""Adversarial unlearning: weights or prompts learn to resist universal changes, and to predict as before otherwise."""

from __future__ import annotations

import copy
import logging
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run, refuse_missing_block, train_copy
from rvpt.defenses.changes import ChangesSpec, make_terms
from rvpt.defenses.few_shot import FewShot
from rvpt.defenses.rvpt import RVPT, SMALL, PromptTuning, RVPTSpec
from rvpt.defenses.suspects import named
from rvpt.defenses.terms import Resist, Term
from rvpt.defenses.tuning import Terms, Tuning, TuningSpec
from rvpt.inversion.pool import predicted_for_nearly_all
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.training.loop import frozen

KNOWN = 0.5  # share of the labeled images from which on a model knows the names of their classes
logger = logging.getLogger("rvpt")


class UnlearnSpec(ChangesSpec, TuningSpec):
    """Settings of adversarial unlearning."""

    lr: float = Field(1e-5, gt=0, description="learning rate")
    epochs: int = Field(30, ge=1, description="passes over the images")
    weight_decay: float = Field(0.1, ge=0, description="weight decay")
    head_lr: float = Field(1e-2, gt=0, description="learning rate of this classifier")
    first_block: int = Field(0, ge=0, description="first trained block D, counted from 0")
    averaged: float = Field(0.5, ge=0, le=1, description="share of the steps, at the end, whose weights are averaged")


class UnlearnPromptsSpec(ChangesSpec, RVPTSpec):
    """Settings of adversarial unlearning by prompts."""

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="how the weights are updated")
    alpha: float = Field(0.0, ge=0, description="weight of the feature-repelling loss")


class BlockTuning(Tuning):
    """The weights of the blocks from D on, and of what follows them in the visual tower."""

    def __init__(self, clip: Clip, data: Dataset, spec: TuningSpec, terms: Terms | None = None) -> None:
        super().__init__(clip, data, spec, spec.first_block, terms)
        self.victim = copy.deepcopy(clip).requires_grad_(False)
        for module in self.victim.architecture.image_modules:
            module.requires_grad_(True)
        vision: Any = self.victim.vision
        for constant in (vision.embeddings, vision.pre_layrnorm, self.victim.blocks[: spec.first_block]):
            constant.requires_grad_(False)

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        tokens, rows = self.victim.run_blocks(tokens, start=self.first_block)
        return self.victim.project(tokens[:, 0]), rows


class Unlearn(Defense):
    """Adversarial unlearning (Zeng et al., ICLR 2022, I-BAU) of the visual tower of a CLIP, with suspected targets."""

    name = "unlearn"
    summary = "the visual tower, by resisting universal changes that move against it"
    Spec = UnlearnSpec
    small = {"lr": 3e-4}

    @classmethod
    def refuse(cls, clip: Clip, data: Dataset, spec: Any) -> None:
        super().refuse(clip, data, spec)
        refuse_missing_block(spec.first_block, len(clip.blocks))
        _refuse_targets(data, spec)

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> BlockTuning:
        """What is trained."""
        return BlockTuning(clip, *_images_and_terms(clip, data, spec, run))

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        with frozen(clip):
            task = cls.task(clip, data, spec, run)
            cleaned = train_copy(task, task.victim, data, spec, run, averaged=spec.averaged)
        cleaned.head = task.head()
        cleaned.facts["trained_parameters"] += task.head_parameters()
        cleaned.facts |= found_targets(task)
        return cleaned


class UnlearnPrompts(RVPT):
    """Adversarial unlearning (Zeng et al., ICLR 2022, I-BAU) by the prompts of RVPT."""

    name = "unlearn-prompts"
    summary = "deep visual prompts, by resisting universal changes that move against them"
    Spec = UnlearnPromptsSpec
    small = {**SMALL, "prompt_length": 30, "epochs": 30, "lr": 3e-2}
    coop = {}

    @classmethod
    def refuse(cls, clip: Clip, data: Dataset, spec: Any) -> None:
        super().refuse(clip, data, spec)
        _refuse_targets(data, spec)

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> PromptTuning:
        return PromptTuning(clip, *_images_and_terms(clip, data, spec, run))

    @classmethod
    def facts(cls, task: PromptTuning, data: Dataset) -> dict[str, Any]:
        return super().facts(task, data) | found_targets(task)


def _refuse_targets(data: Dataset, spec: Any) -> None:
    """Refuse targets that are no classes of the images."""
    named(data.present()[0] if spec.uses_labels() else data.classes, spec.targets)


def _images_and_terms(clip: Clip, data: Dataset, spec: Any, run: Run) -> tuple[Dataset, Any, Terms]:
    """The images, in memory if every step changes some of them anew; the spec; and what makes the terms."""
    read = data.cached(clip.image_size, run.report) if spec.resist else data

    def terms(few_shot: FewShot) -> list[Term]:
        _warn_of_wrong_predictions(few_shot, spec)
        return make_terms(few_shot, spec, spec.seed, run)

    return read, spec, terms


def _warn_of_wrong_predictions(few_shot: FewShot, spec: Any) -> None:
    """Warn if the suspect is right on few of the labeled images, and say what may be the cause."""
    right = (few_shot.predictions == few_shot.labels).double().mean().item()  # 1 without labels
    if right >= KNOWN:
        return
    if most := predicted_for_nearly_all(few_shot.predictions, few_shot.names):
        logger.warning(
            "the suspect classifies %.0f%% of the labeled images as %r: these images may act as a trigger",
            100 * most[1],
            most[0],
        )
    elif not spec.head:
        logger.warning(
            "the model is right on only %.0f%% of the labeled images: it may not know these class names; set head=true "
            "to train a classifier too",
            100 * right,
        )


def found_targets(task: Tuning) -> dict[str, Any]:
    """The classes that a task trained against, by name."""
    resisted = [term for term in task.terms if isinstance(term, Resist)]
    return {"resisted_targets": [task.names[index] for term in resisted for index in term.targets.tolist()]}

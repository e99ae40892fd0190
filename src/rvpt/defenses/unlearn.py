"""Adversarial unlearning: weights or prompts learn to resist universal changes, and to predict as before otherwise."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.trigger import REFERENCE_SIDE
from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run, refuse_missing_block, train_copy
from rvpt.defenses.rvpt import RVPT, SMALL, PromptTuning, RVPTSpec
from rvpt.defenses.suspects import named, scan
from rvpt.defenses.terms import Keep, Resist, Term
from rvpt.defenses.tuning import Tuning, TuningSpec
from rvpt.inversion import FORMS
from rvpt.inversion.descent import short_run
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import FormNames, InversionSpec
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.encode import encode_set
from rvpt.spec import Spec
from rvpt.training.loop import frozen

SCANNED = 512  # images of the few-shot set, at most, that the first changes are optimized on
BUDGETS = ("budget", "wave_budget", "amplitude", "warp_budget", "patch_size")
"""The settings that unlearning and `InversionSpec` share."""


class ChangesSpec(Spec):
    """Settings of the terms `keep` and `resist`, and of the universal changes."""

    keep: float = Field(1.0, ge=0, description="weight of staying with the suspect's predictions on mixtures")
    resist: float = Field(1.0, ge=0, description="weight of the loss on images with universal changes")
    targets: tuple[str, ...] = Field((), description="suspected target classes; by default those of a short scan")
    suspects: int = Field(1, ge=1, description="how many of the suspected targets are used, the first ones")
    forms: FormNames = Field(("additive", "waves", "patch"), description="forms of the changes")
    budget: float = Field(6.0, ge=0, le=255, description="root mean square of an additive change, in 255ths")
    wave_budget: float = Field(30.0, ge=0, le=255, description="root mean square of a smooth change, in 255ths")
    amplitude: float = Field(40.0, ge=0, le=255, description="amplitude of a grating, in 255ths")
    warp_budget: float = Field(1.6, ge=0, description="root mean square of a displacement, in half pixels")
    patch_size: float = Field(47.0, gt=0, le=REFERENCE_SIDE, description="side of a patch, in pixels at 224")

    def inversion(self, seed: int) -> InversionSpec:
        """The budgets of the changes, and the settings of the scan."""
        return InversionSpec(**{name: getattr(self, name) for name in BUDGETS}, seed=seed)


class UnlearnSpec(ChangesSpec, TuningSpec):
    """Settings of adversarial unlearning."""

    lr: float = Field(1e-5, gt=0, description="learning rate")
    epochs: int = Field(30, ge=1, description="passes over the images")
    weight_decay: float = Field(0.1, ge=0, description="weight decay")
    first_block: int = Field(0, ge=0, description="first trained block D, counted from 0")


class UnlearnPromptsSpec(ChangesSpec, RVPTSpec):
    """Settings of adversarial unlearning by prompts."""

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="how the weights are updated")
    alpha: float = Field(0.0, ge=0, description="weight of the feature-repelling loss")


class BlockTuning(Tuning):
    """The weights of the blocks from D on, and of what follows them in the visual tower."""

    def __init__(self, clip: Clip, data: Dataset, spec: TuningSpec, terms: list[Term]) -> None:
        refuse_missing_block(spec.first_block, len(clip.blocks))
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
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        with frozen(clip):
            task = BlockTuning(clip, data, spec, terms(clip, data, spec))
            cleaned = train_copy(task, task.victim, data, spec, run)
        cleaned.facts |= found_targets(task, data)
        return cleaned


class UnlearnPrompts(RVPT):
    """Adversarial unlearning (Zeng et al., ICLR 2022, I-BAU) by the prompts of RVPT."""

    name = "unlearn-prompts"
    summary = "deep visual prompts, by resisting universal changes that move against them"
    Spec = UnlearnPromptsSpec
    small = {**SMALL, "prompt_length": 30, "epochs": 30, "lr": 3e-2}
    coop = {}

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any) -> PromptTuning:
        return PromptTuning(clip, data, spec, terms(clip, data, spec))

    @classmethod
    def facts(cls, task: PromptTuning, data: Dataset) -> dict[str, Any]:
        return super().facts(task, data) | found_targets(task, data)


def found_targets(task: Tuning, data: Dataset) -> dict[str, Any]:
    """The classes that a task trained against, by name."""
    names, _ = data.present()
    resisted = [term for term in task.terms if isinstance(term, Resist)]
    return {"resisted_targets": [names[index] for term in resisted for index in term.targets.tolist()]}


def terms(clip: Clip, data: Dataset, spec: Any) -> list[Term]:
    """The terms of a `ChangesSpec` whose weight is not zero.

    Raises:
        RvptError: a suspected target has no clean images.
    """
    names, labels = data.present()
    suspected = named(names, spec.targets)[: spec.suspects].to(clip.device)
    with torch.no_grad():
        text = clip.class_features(names, spec.template)
    found: list[Term] = []
    if spec.keep:
        right = (encode_set(clip, data) @ text.T).argmax(1).cpu() == labels
        found.append(Keep(spec.keep, right, clip.device))
    if spec.resist:
        inversion, some = spec.inversion(spec.seed), data.sample(SCANNED, spec.seed)
        forms = [FORMS[name].of(inversion, clip.image_size) for name in spec.forms]
        pool = Pool.of(clip, some.pixels(torch.arange(len(some)), clip.image_size), text)
        if not len(suspected):
            start = scan(forms, pool, spec.suspects, inversion)
        else:
            start = suspected, [short_run(form, pool, suspected, inversion) for form in forms]
        found.append(Resist(spec.resist, data, clip, forms, *start))
    return found

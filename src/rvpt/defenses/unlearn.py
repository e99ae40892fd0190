"""Adversarial unlearning by prompts: they learn to resist universal changes, and to predict as before otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.text import plain
from rvpt.defenses.rvpt import RVPT, SMALL, PromptTuning, RVPTSpec
from rvpt.defenses.terms import Keep, Resist, Term
from rvpt.errors import RvptError
from rvpt.inversion import FORMS
from rvpt.inversion.descent import descend, reached, towards
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip


def _known_forms(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        FORMS.find(name)
    if not names or len(set(names)) < len(names):
        raise ValueError("give different forms, at least one")
    return names


class UnlearnSpec(RVPTSpec):
    """Settings of adversarial unlearning."""

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="how the weights are updated")
    prompt_length: int = Field(50, ge=1, description="prompts per block b")
    alpha: float = Field(0.0, ge=0, description="weight of the feature-repelling loss")
    keep: float = Field(1.0, ge=0, description="weight of staying with the suspect's predictions on mixtures")
    resist: float = Field(1.0, ge=0, description="weight of the loss on images with universal changes")
    targets: tuple[str, ...] = Field((), description="suspected target classes; by default those of a short scan")
    suspects: int = Field(3, ge=1, description="number of classes that the scan keeps")
    forms: Annotated[tuple[str, ...], AfterValidator(_known_forms)] = Field(
        ("additive", "waves", "patch"), description="forms of the changes"
    )
    budget: float = Field(6.0, ge=0, le=255, description="root mean square of an additive change, in 255ths")
    wave_budget: float = Field(18.0, ge=0, le=255, description="root mean square of a smooth change, in 255ths")
    patch_size: float = Field(47.0, gt=0, le=224, description="side of a patch, in pixels at 224")

    def inversion(self) -> InversionSpec:
        """The budgets of the changes, and the settings of the scan."""
        budgets = {name: getattr(self, name) for name in ("budget", "wave_budget", "patch_size", "seed")}
        return InversionSpec(**budgets)


class Unlearn(RVPT):
    """Adversarial unlearning (Zeng et al., ICLR 2022, I-BAU) of prompts instead of weights."""

    name = "unlearn"
    summary = "deep visual prompts, by resisting universal changes that move against them"
    Spec = UnlearnSpec
    small = {**SMALL, "prompt_length": 30, "lr": 3e-2}
    coop = {}

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any) -> PromptTuning:
        task = PromptTuning(clip, data, spec)
        task.terms.extend(terms(clip, data, task.text, spec))
        return task


def terms(clip: Clip, data: Dataset, text: Tensor, spec: UnlearnSpec) -> list[Term]:
    """The terms whose weight is not zero."""
    found: list[Term] = [Keep(spec.keep)] if spec.keep else []
    if spec.resist:
        inversion, names = spec.inversion(), data.present()[0]
        forms = [FORMS[name].of(inversion, clip.image_size) for name in spec.forms]
        pool = Pool.of(clip, data.pixels(torch.arange(len(data)), clip.image_size), text)
        if spec.targets:
            classes = torch.tensor([place(names, target) for target in spec.targets], device=clip.device)
            starts = [invert(form, pool, classes, inversion) for form in forms]
        else:
            every = torch.arange(len(names), device=clip.device)
            starts = [invert(form, pool, every, inversion) for form in forms]
            classes = most_suspicious(forms, pool, starts, inversion)[: spec.suspects]
            starts = [start[classes] for start in starts]
        found.append(Resist(spec.resist, data, clip, forms, classes, starts))
    return found


def place(names: Sequence[str], target: str) -> int:
    """The index of a suspected target among the classes with images.

    Raises:
        RvptError: it is not among them.
    """
    known = [plain(name) for name in names]
    if plain(target) not in known:
        raise RvptError(f"targets: there are no clean images of class {target!r}: choose from {', '.join(names)}")
    return known.index(plain(target))


def invert(form: Form, pool: Pool, classes: Tensor, spec: InversionSpec) -> Tensor:
    """Changes (C, ...) of a form towards each of some classes (C,), after a short descent."""
    start = form.start(len(classes)).to(pool.pixels.device)
    return descend(form, pool, towards(classes), start, spec.steps, spec.images, spec)


def most_suspicious(forms: Sequence[Form], pool: Pool, changes: Sequence[Tensor], spec: InversionSpec) -> Tensor:
    """All classes (K,), from the one that the changes of some form reach farthest beyond what is usual for the form.

    max over forms of (m_c - median m) / median |m - median m|,  m_c the margin of class c

    Args:
        forms: F of them.
        pool: the images.
        changes: of each form (K, ...), one towards each class.
        spec: seed and batch size.
    """
    every = torch.arange(len(pool.text), device=pool.pixels.device)
    pairs = zip(forms, changes, strict=True)
    margins = torch.stack([reached(form, pool, every, change, spec).margins for form, change in pairs])  # (F, K)
    excess = margins - margins.median(1, keepdim=True).values
    spread = excess.abs().median(1, keepdim=True).values.clamp(min=1e-6)
    return (excess / spread).amax(0).argsort(descending=True)

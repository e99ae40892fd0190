"""Adversarial unlearning by prompts: they learn to resist universal changes, and to predict as before otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.text import plain
from rvpt.defenses.rvpt import RVPT, SMALL, PromptTuning, RVPTSpec
from rvpt.defenses.terms import Keep, Resist, Term
from rvpt.errors import RvptError
from rvpt.inversion.additive import Additive, invert
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip


class UnlearnSpec(RVPTSpec):
    """Settings of adversarial unlearning."""

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="how the weights are updated")
    prompt_length: int = Field(10, ge=1, description="prompts per block b")
    alpha: float = Field(0.0, ge=0, description="weight of the feature-repelling loss")
    keep: float = Field(1.0, ge=0, description="weight of staying with the suspect's predictions on mixtures")
    resist: float = Field(1.0, ge=0, description="weight of the cross-entropy of images with universal changes")
    targets: tuple[str, ...] = Field((), description="suspected target classes; by default those of a short scan")
    changes: int = Field(3, ge=1, description="number of universal changes, and of classes that the scan keeps")
    budget: float = Field(6.0, ge=0, le=255, description="root mean square of a change, in 255ths")
    change_step: float = Field(0.2, gt=0, description="step of a change, in shares of its budget")


class Unlearn(RVPT):
    """Adversarial unlearning (Zeng et al., ICLR 2022, I-BAU) of prompts instead of weights."""

    name = "unlearn"
    summary = "deep visual prompts, by resisting universal changes that move against them"
    Spec = UnlearnSpec
    small = {**SMALL, "prompt_length": 10, "lr": 3e-2}

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any) -> PromptTuning:
        task = PromptTuning(clip, data, spec)
        task.terms.extend(terms(task, clip, data, spec))
        return task


def terms(task: PromptTuning, clip: Clip, data: Dataset, spec: UnlearnSpec) -> list[Term]:
    """The terms whose weight is not zero."""
    found: list[Term] = [Keep(spec.keep)] if spec.keep else []
    if spec.resist:
        form, start = first_changes(clip, data, task.text, spec)
        found.append(Resist(spec.resist, data, clip, form, start, spec.change_step))
    return found


def first_changes(clip: Clip, data: Dataset, text: Tensor, spec: UnlearnSpec) -> tuple[Additive, Tensor]:
    """The form of the changes, and those of the first step (M, 3, S, S): inverted from the suspect.

    Towards the suspected targets, or without any towards the classes that a short inversion reaches best.

    Raises:
        RvptError: a suspected target is not among the classes with images.
    """
    inversion = InversionSpec(budget=spec.budget, seed=spec.seed)
    form = Additive.of(inversion, clip.image_size)
    names, _ = data.present()
    classes = torch.arange(len(names)) if not spec.targets else torch.tensor([place(names, t) for t in spec.targets])
    pool = Pool.of(clip, data.pixels(torch.arange(len(data)), clip.image_size), text)
    changes = invert(
        pool, classes.to(clip.device), form.start(len(classes)).to(clip.device), form.limit,
        inversion.steps, inversion.images, inversion,
    )  # fmt: skip
    if not spec.targets:
        changes = changes[best(pool, classes.to(clip.device), changes, form)[: spec.changes]]
    return form, changes


def place(names: Sequence[str], target: str) -> int:
    """The index of a suspected target among the classes with images.

    Raises:
        RvptError: it is not among them.
    """
    known = [plain(name) for name in names]
    if plain(target) not in known:
        raise RvptError(f"targets: there are no clean images of class {target!r}: choose from {', '.join(names)}")
    return known.index(plain(target))


@torch.no_grad()
def best(pool: Pool, classes: Tensor, changes: Tensor, form: Additive) -> Tensor:
    """The places of changes (C, 3, S, S) from the one that reaches its class (C,) best, by the mean margin in cosines."""
    margins = []
    for target, change in zip(classes.tolist(), changes.split(1), strict=True):
        others = pool.select((pool.predictions != target).nonzero()[:, 0])
        cosines = pool.model.encode_image(form.apply(others.pixels, change, torch.zeros(0))[0]) @ pool.text.T
        rest = cosines.clone()
        rest[:, target] = -1
        margins.append((cosines[:, target] - rest.amax(1)).mean())
    return torch.stack(margins).argsort(descending=True)

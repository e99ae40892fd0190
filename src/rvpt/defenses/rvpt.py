"""RVPT: deep visual prompts, trained with cross-entropy and a loss that repels features from those of the suspect."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.data.augment import AUGMENTS
from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run, refuse_missing_block
from rvpt.defenses.terms import Batch, Term
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.packed import packed
from rvpt.models.placement import DTYPES, mixed_precision
from rvpt.models.prompts import Constants, RepulsivePrompts, frozen_pass, prompted_pass
from rvpt.spec import TEMPLATE, Augment, Template, TrainSpec
from rvpt.training.graphs import StaticTask
from rvpt.training.loop import Untrained, fit, frozen
from rvpt.training.losses import feature_repelling, zero_shot_logits

COOP = {"augment": "crop-flip", "weight_decay": 5e-4}  # what CoOp's trainers do, which the paper builds on
SMALL = {"optimizer": "adamw", "weight_decay": 0.1, "first_block": 2, "prompt_length": 100, "epochs": 40}


class RVPTSpec(TrainSpec):
    """Settings of RVPT; the defaults are the paper's. alpha = 0 is plain VPT."""

    optimizer: Literal["adamw", "sgd"] = Field("sgd", description="how the weights are updated")
    lr: float = Field(2e-3, gt=0, description="learning rate")
    epochs: int = Field(50, ge=1, description="passes over the images")
    batch_size: int = Field(32, ge=1, description="images per training step")
    first_block: int = Field(3, ge=0, description="first prompted block D, counted from 0")
    depth: int | None = Field(None, ge=1, description="number of prompted blocks, instead of first_block")
    depth_from: Literal["output", "input"] = Field("output", description="side from which depth is counted")
    prompt_length: int = Field(50, ge=1, description="prompts per block b")
    alpha: float = Field(2.0, ge=0, description="weight of the feature-repelling loss")
    margin: float = Field(-1.0, ge=-1, le=1, description="the repelling loss stops below this value; -1: never")
    init_std: float = Field(0.02, gt=0, description="standard deviation of the initial prompts")
    template: Template = Field(TEMPLATE, description="caption of a class")
    augment: Augment = Field("none", description="random changes of training images; none is fastest")

    @model_validator(mode="after")
    def _depth_is_given(self) -> RVPTSpec:
        if self.depth is None and self.depth_from == "input":
            raise ValueError("depth_from has no effect without depth: set depth too")
        return self

    def prompted(self, blocks: int) -> range:
        """The prompted blocks of a model with `blocks` blocks.

        D..L-1 by default; the last `depth` blocks, or with depth_from = "input" the first `depth`.

        Raises:
            RvptError: the model has fewer blocks.
        """
        if self.depth is None:
            refuse_missing_block(self.first_block, blocks)
            return range(self.first_block, blocks)
        if self.depth > blocks:
            raise RvptError(f"depth={self.depth} is too deep: the model has {blocks} blocks")
        return range(blocks - self.depth, blocks) if self.depth_from == "output" else range(self.depth)


class PromptTuning(StaticTask):
    """Loss = CE(tau cos(image, text of each class)) + alpha FR + sum of weight * term, on a batch of the few-shot set.

    Without augmentation the tokens before block D and the frozen [CLS] rows never change: they are computed once, in
    the precision of the training. One prompted pass carries the batch and the images of all terms.

    Source: Zhang et al. (arXiv 2412.20392), section 4, which has no further terms.
    """

    def __init__(self, clip: Clip, data: Dataset, spec: RVPTSpec, terms: Sequence[Term] = ()) -> None:
        super().__init__()
        blocks = spec.prompted(len(clip.blocks))
        self.prompts = RepulsivePrompts(blocks, spec.prompt_length, clip.width, spec.init_std, spec.seed)
        self.prompts.to(clip.device)
        names, self.labels = data.present()
        with torch.no_grad():
            self.text = clip.class_features(names, spec.template)
        clip = packed(clip, DTYPES[spec.precision])
        self.data, self.spec, self.suspect = data, spec, Untrained(clip)
        with mixed_precision(spec.precision, clip.device):
            self.constants = Constants(clip, data, blocks[0]) if spec.augment == "none" else None
        self.terms: Any = nn.ModuleList(terms)
        self.counts: list[int] = []

    def inputs(self, indices: Tensor, generator: torch.Generator, done: float) -> tuple[Tensor, ...]:
        """Labels (B,), what the terms need, and images (B, 3, S, S) or, without augmentation, the constants."""
        clip = self.suspect.module
        labels = self.labels[indices].to(clip.device, non_blocking=True)
        given = [term.inputs(indices, generator) for term in self.terms]
        self.counts = [len(each) for each in given]
        more = itertools.chain(*given)
        if self.constants is not None:
            return labels, *more, *self.constants[indices]
        pixels = self.data.pixels(indices, clip.image_size).to(clip.device)
        return labels, *more, AUGMENTS[self.spec.augment](pixels, generator)

    def losses(self, *inputs: Tensor) -> dict[str, Tensor]:
        clip, first, rest = self.suspect.module, self.prompts.first_block, iter(inputs)
        labels = next(rest)
        given = [tuple(itertools.islice(rest, count)) for count in self.counts]
        own = tuple(rest)
        tokens, frozen_rows = own if self.constants is not None else frozen_pass(clip, own[0], first)
        batch = Batch(clip, self.text, first, tokens, labels)
        views = [term(batch, *each) for term, each in zip(self.terms, given, strict=True)]
        image, rows = prompted_pass(clip, self.prompts, torch.cat([tokens, *(view.tokens for view in views)]))
        logits = zero_shot_logits(image, self.text, clip.logit_scale).split(len(tokens))
        ce = F.cross_entropy(logits[0], labels)
        fr = feature_repelling(rows[: len(tokens)], frozen_rows, self.spec.margin)
        parts = zip(self.terms, views, logits[1:], strict=True)
        more: dict[str, Tensor] = {term.name: view.loss(part) for term, view, part in parts}
        loss = ce + self.spec.alpha * fr
        for term in self.terms:
            loss = loss + term.weight * more[term.name]
        return {"loss": loss, "CE": ce, "FR": fr, **more}


class RVPT(Defense):
    """Repulsive Visual Prompt Tuning (Zhang et al., arXiv 2412.20392)."""

    name = "rvpt"
    summary = "deep visual prompts, by cross-entropy and the feature-repelling loss"
    Spec = RVPTSpec
    small = {**SMALL, "lr": 3e-2}
    coop = COOP

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any) -> PromptTuning:
        """What is trained."""
        return PromptTuning(clip, data, spec)

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        with frozen(clip):
            task = cls.task(clip, data, spec)
            history = fit(task, len(data), spec, checkpoint=run.checkpoint, report=run.report)
        facts = {"history": history, "trained_parameters": task.prompts.parameter_count()}
        if cls is RVPT and not spec.alpha:
            facts["defense"] = "vpt"  # RVPT without repelling is VPT
        return Cleaned(clip, task.prompts.requires_grad_(False), facts=facts)

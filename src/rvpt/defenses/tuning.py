"""Few-shot training of what comes after a frozen part of the visual tower: the losses, and what is computed once."""

from __future__ import annotations

import itertools
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.data.augment import AUGMENTS
from rvpt.data.dataset import Dataset
from rvpt.defenses.few_shot import FewShot
from rvpt.defenses.terms import Batch, Term
from rvpt.errors import RvptError
from rvpt.inversion.pool import predicted_for_nearly_all
from rvpt.models.clip import Clip
from rvpt.models.encode import encode_set
from rvpt.models.head import Head, with_one
from rvpt.models.packed import packed
from rvpt.models.placement import DTYPES, mixed_precision
from rvpt.models.prompts import ENCODE_BATCH, Constants, first_tokens, frozen_pass
from rvpt.spec import TEMPLATE, Augment, Template, TrainSpec
from rvpt.training.graphs import StaticTask
from rvpt.training.loop import Untrained
from rvpt.training.losses import feature_repelling, keep, zero_shot_logits
from rvpt.training.own_rate import OwnRate

logger = logging.getLogger("rvpt")
Terms = Callable[[FewShot], Sequence[Term]]
"""Makes the terms of a task besides cross-entropy and repelling."""


class TuningSpec(TrainSpec):
    """Settings of the training with a few images per class."""

    batch_size: int = Field(32, ge=1, description="images per training step")
    first_block: int = Field(3, ge=0, description="first trained block D, counted from 0")
    alpha: float = Field(0.0, ge=0, description="weight of the feature-repelling loss")
    margin: float = Field(-1.0, ge=-1, le=1, description="the repelling loss stops below this value; -1: never")
    template: Template = Field(TEMPLATE, description="caption of a class")
    augment: Augment = Field("none", description="random changes of training images; none is fastest")
    head: bool = Field(False, description="also train a classifier, which starts at the classes' text features")
    head_lr: float = Field(1e-3, gt=0, description="learning rate of this classifier")

    @model_validator(mode="after")
    def _rate_of_a_head(self) -> TuningSpec:
        if "head_lr" in self.model_fields_set and "head" not in self.model_fields_set:  # artifacts store both
            raise RvptError("head_lr is given, but no classifier is trained: add head=True, or remove head_lr")
        return self

    def uses_labels(self) -> bool:
        """Whether the images' labels are used."""
        return True


class Tuning(StaticTask):
    """Loss = CE(tau cos(image, text of each class)) + alpha FR + sum of weight * term, on a batch of the few-shot set.

    Without labels, the suspect's predictions on the same images take the place of CE, and its most probable classes
    that of labels in the terms:

        Loss = mean_i KL(softmax(s_i) | softmax(z_i)) + alpha FR + sum of weight * term,  y_i = argmax_k s_ik

    with the logits s_i of the suspect and z_i of the trained model.

    With `head`, a classifier takes the place of the text features: logits tau W [f, 1] with a row of W for each class,
    which starts at the class's text features and is trained too.

    A subclass defines `encode`, and so what is trained. Without augmentation the tokens before block D and the frozen
    [CLS] rows never change: they are computed once, in the precision of the training. With augmentation they are
    computed in every step; with alpha = 0 and labels nothing needs the rows then, and FR is reported as 0. One pass
    carries the batch and the images of all terms.
    """

    def __init__(
        self, clip: Clip, data: Dataset, spec: TuningSpec, first_block: int, terms: Terms | None = None
    ) -> None:
        super().__init__()
        self.names, labels = data.present() if spec.uses_labels() else (data.classes, None)
        with torch.no_grad():
            self.text = clip.class_features(self.names, spec.template)
        start = torch.cat([self.text, self.text.new_zeros(len(self.text), 1)], dim=1)
        self.class_rows = OwnRate.of(start, spec.head_lr / spec.lr) if spec.head else None
        suspect = packed(clip, DTYPES[spec.precision])
        self.data, self.spec, self.suspect, self.first_block = data, spec, Untrained(suspect), first_block
        with mixed_precision(spec.precision, clip.device):
            self.constants = Constants(suspect, data, first_block) if self.has_constants() else None
        self.labels = self._predicted() if labels is None else labels
        made = terms(FewShot(clip, data, self.names, self.text, self.labels, self.predictions)) if terms else ()
        self.terms: Any = nn.ModuleList(made)
        self.counts: list[int] = []

    def _predicted(self) -> Tensor:
        """The suspect's classes in place of labels; a warning if nearly all images have the same one."""
        if most := predicted_for_nearly_all(self.predictions, self.names):
            logger.warning(
                "the suspect classifies %.0f%% of the images as %r: without labels, cleaning keeps that",
                100 * most[1],
                most[0],
            )
        return self.predictions

    def logits(self, image: Tensor) -> Tensor:
        """The logits (B, K) of unit image features (B, P)."""
        tau = self.suspect.module.logit_scale
        if self.class_rows is None:
            return zero_shot_logits(image, self.text, tau)
        return zero_shot_logits(with_one(image), self.class_rows, tau)

    def head(self) -> Head | None:
        """The classifier as it is now, if one is trained."""
        return None if self.class_rows is None else Head(self.names, self.class_rows.detach())

    def head_parameters(self) -> int:
        """How many parameters the classifier has."""
        return 0 if self.class_rows is None else self.class_rows.numel()

    @cached_property
    @torch.no_grad()
    def predictions(self) -> Tensor:
        """The suspect's own classes (n,) int64 of all images, which are not encoded again where there are constants."""
        with mixed_precision(self.spec.precision, self.text.device):
            constant = self.constants is not None
            features = self._constant_features() if constant else encode_set(self.suspect.module, self.data)
        return zero_shot_logits(features.to(self.text), self.text, 1.0).argmax(1).cpu()

    def _constant_features(self) -> Tensor:
        """The suspect's unit features (n, P) of all images."""
        assert self.constants is not None
        parts = torch.arange(len(self.data)).split(ENCODE_BATCH)
        return torch.cat([self.suspect.module.project(self.constants[part][1][:, -1]) for part in parts])

    def has_constants(self) -> bool:
        """Whether images are the same in every step."""
        return bool(self.spec.augment == "none")

    @abstractmethod
    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """From the tokens (B, 1 + N, W) before block D: unit image features (B, P), and the [CLS] rows (B, L - D, W)
        after each block from D on."""

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
        clip, rest = self.suspect.module, iter(inputs)
        labels = next(rest)
        given = [tuple(itertools.islice(rest, count)) for count in self.counts]
        images = tuple(rest)
        tokens, frozen_rows = images if self.constants is not None else self._frozen(*images)
        batch = Batch(clip, self.text, self.first_block, tokens, labels)
        views = [term(batch, *each) for term, each in zip(self.terms, given, strict=True)]
        image, rows = self.encode(torch.cat([tokens, *(view.tokens for view in views)]))
        sizes = [len(tokens), *(len(view.tokens) for view in views)]
        logits = self.logits(image).split(sizes)
        own = self._own_loss(logits[0], labels, frozen_rows)
        fr = own.new_zeros(())
        if frozen_rows is not None:
            fr = feature_repelling(rows[: len(tokens)], frozen_rows, self.spec.margin)
        parts = zip(self.terms, views, logits[1:], strict=True)
        more: dict[str, Tensor] = {term.name: view.loss(part) for term, view, part in parts}
        loss = own + self.spec.alpha * fr
        for term in self.terms:
            loss = loss + term.weight * more[term.name]
        return {"loss": loss, "CE" if self.spec.uses_labels() else "KL": own, "FR": fr, **more}

    def _frozen(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """`frozen_pass` of images (B, 3, S, S), without the rows where neither FR nor predictions use them."""
        clip = self.suspect.module
        if self.spec.alpha or not self.spec.uses_labels():
            return frozen_pass(clip, pixels, self.first_block)
        return first_tokens(clip, pixels, self.first_block), None

    def _own_loss(self, logits: Tensor, labels: Tensor, frozen_rows: Tensor | None) -> Tensor:
        """The loss on the images themselves: cross-entropy, or divergence from the suspect where there are no labels.

        Args:
            logits: (B, K).
            labels: (B,) int64.
            frozen_rows: (B, L - D, W), the suspect's [CLS] rows; None if labels are used and nothing needs them.
        """
        if self.spec.uses_labels():
            return F.cross_entropy(logits, labels)
        assert frozen_rows is not None
        clip = self.suspect.module
        return keep(logits, zero_shot_logits(clip.project(frozen_rows[:, -1]), self.text, clip.logit_scale))

"""Adversarial images: accuracy under small changes that are optimized for each image against the model.

A cleaned model is not meant to resist them: having no backdoor is a different property (the paper's table 12).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, finite, stream
from rvpt.evaluation.metrics import accuracy
from rvpt.progress import Report, silent
from rvpt.rows import CLEAN
from rvpt.spec import TEMPLATE, Spec, Template
from rvpt.training.losses import zero_shot_logits
from rvpt.training.pgd import STEPS, pgd


class AdversarialSettings(Spec):
    """Settings of the adversarial protocol."""

    epsilon: float = Field(2.0, gt=0, le=255, description="maximum change of a pixel, in 255ths")
    template: Template = Field(TEMPLATE, description="caption of a class")


class Adversarial(Protocol):
    """CA, and PA under PGD-10 (Madry et al., ICLR 2018)."""

    name = "adversarial"
    summary = f"accuracy under adversarial images (PGD-{STEPS})"
    by_class = True
    uses_triggers = False
    Settings = AdversarialSettings

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        return resist(model, data, **dict(self.settings), batch_size=batch_size, report=report)


def resist(
    model: Encoder,
    data: Dataset,
    *,
    epsilon: float = 2.0,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """CA, and PA on images changed by PGD-10 against the cross-entropy of their own class.

    Args:
        model: the model to measure.
        data: labeled images.
        epsilon: the largest change of a pixel, in 255ths.
        template: the caption of a class.
        batch_size: images per batch.
        report: called after each batch.

    Raises:
        RvptError: no labels, or features that are not finite.
    """
    labels, counts, attack = data.labeled(), Counts(), f"pgd-{STEPS} {epsilon:g}/255"
    with torch.no_grad():
        text = finite(model, model.class_features(data.classes, template))

    def logits(pixels: Tensor) -> Tensor:
        return zero_shot_logits(finite(model, model.encode_image(pixels)), text, model.logit_scale)

    for batch in stream(model, data, batch_size=batch_size, report=report):
        truth = labels[batch.indices].to(model.device)
        changed = pgd(partial(_loss, logits, truth), batch.pixels, batch.rows, epsilon / 255)
        for name, metric, pixels in ((CLEAN, "CA", batch.pixels), (attack, "PA", changed)):
            with torch.no_grad():
                counts.count(name, metric, accuracy(logits(pixels).argmax(1), truth))
    return counts


def _loss(logits: Callable[[Tensor], Tensor], truth: Tensor, pixels: Tensor) -> Tensor:
    return F.cross_entropy(logits(pixels), truth, reduction="sum")

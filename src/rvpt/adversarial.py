"""Adversarial images: the accuracy that a small change leaves, made for each image and model by its gradients.

A cleaned model is not meant to resist it: it has no backdoor, which is another thing (the paper's table 12).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.config import TEMPLATE
from rvpt.data import ImageData
from rvpt.evaluation import Counts, Encoder
from rvpt.losses import zero_shot_logits
from rvpt.metrics import Rate, accuracy
from rvpt.pgd import STEPS, pgd
from rvpt.progress import Report, silent


def resist(
    model: Encoder,
    data: ImageData,
    *,
    epsilon: float = 2.0,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """CA, and PA on images changed by PGD-10 against the cross-entropy of their own class.

    Args:
        epsilon: the largest change of any value, in 255ths.
    """
    labels, counts = data.labeled(), {"none": Rate(0, 0), f"pgd-{STEPS} {epsilon:g}/255": Rate(0, 0)}
    clean, attacked = counts
    with torch.no_grad():
        text = model.class_features(data.classes, template)

    def logits(pixels: Tensor) -> Tensor:
        return zero_shot_logits(model.encode_image(pixels), text, model.logit_scale)

    for indices, read in data.batches(batch_size, model.image_size):
        pixels, truth = read.to(model.device), labels[indices].to(model.device)
        changed = pgd(partial(_loss, logits, truth), pixels, data.rows[indices], epsilon / 255)
        for attack, shown in ((clean, pixels), (attacked, changed)):
            with torch.no_grad():
                counts[attack] += accuracy(logits(shown).argmax(1), truth)
        report(int(indices[-1]) + 1, len(data), {})
    return {(clean, "CA"): counts[clean], (attacked, "PA"): counts[attacked]}


def _loss(logits: Callable[[Tensor], Tensor], truth: Tensor, pixels: Tensor) -> Tensor:
    return F.cross_entropy(logits(pixels), truth, reduction="sum")

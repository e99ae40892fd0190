"""Adversarial pictures: the accuracy that a small change leaves, made for each picture and model by its gradients.

A cleaned model is not meant to resist it: it has no backdoor, which is another thing (the paper's table 12).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.config import TEMPLATE
from rvpt.data import ImageData
from rvpt.draws import uniform
from rvpt.evaluation import Counts, Encoder, to_rows
from rvpt.losses import zero_shot_logits
from rvpt.metrics import Rate, accuracy
from rvpt.progress import Report, silent

STEPS = 10
STRIDE = 2.5  # the way that all steps together could go, in radii: the border is reached from anywhere inside
SEED = 1706  # of the starts; triggers and shifts draw from others


def pgd(loss: Callable[[Tensor], Tensor], pixels: Tensor, start: Tensor, epsilon: float, steps: int = STEPS) -> Tensor:
    """Projected gradient ascent on a loss, in the box of radius epsilon around each picture, within [0, 1].

    x_0 = P(x + u);  x_{t+1} = P(x_t + (2.5 epsilon / steps) sign(grad loss(x_t)));
    P clamps to [x - epsilon, x + epsilon] and to [0, 1]

    Args:
        loss: of pictures (B, 3, H, W), a scalar; a sum over pictures, so that none depends on another.
        pixels: x, (B, 3, H, W) float in [0, 1].
        start: u, of the same shape, in [-epsilon, epsilon].

    Source: Madry et al. (ICLR 2018).
    """
    low, high = (pixels - epsilon).clamp(min=0), (pixels + epsilon).clamp(max=1)
    changed = (pixels + start).clamp(low, high)
    for _ in range(steps):
        changed.requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(changed), changed)
        changed = (changed.detach() + STRIDE * epsilon / steps * slope.sign()).clamp(low, high)
    return changed


def resist(
    model: Encoder,
    data: ImageData,
    *,
    epsilon: float = 2.0,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """CA, and PA on pictures changed by PGD-10 against the cross-entropy of their own class.

    Args:
        epsilon: the largest change of any value, in 255ths.
    """
    labels, counts = data.labelled(), {"none": Rate(0, 0), f"pgd-{STEPS} {epsilon:g}/255": Rate(0, 0)}
    clean, attacked = counts
    with torch.no_grad():
        text = model.class_features(data.classes, template)

    def logits(pixels: Tensor) -> Tensor:
        return zero_shot_logits(model.encode_image(pixels), text, model.logit_scale)

    for indices, read in data.batches(batch_size, model.image_size):
        pixels, truth = read.to(model.device), labels[indices].to(model.device)
        draws = uniform(SEED, data.rows[indices], pixels[0].numel()).view(pixels.shape).to(pixels)
        changed = pgd(partial(_loss, logits, truth), pixels, (2 * draws - 1) * epsilon / 255, epsilon / 255)
        for attack, shown in ((clean, pixels), (attacked, changed)):
            with torch.no_grad():
                counts[attack] += accuracy(logits(shown).argmax(1), truth)
        report(int(indices[-1]) + 1, len(data), {})
    return {(clean, "CA"): counts[clean], (attacked, "PA"): counts[attacked]}


def _loss(logits: Callable[[Tensor], Tensor], truth: Tensor, pixels: Tensor) -> Tensor:
    return F.cross_entropy(logits(pixels), truth, reduction="sum")


def evaluate_adversarial(
    model: Encoder,
    data: ImageData,
    *,
    epsilon: float = 2.0,
    facts: Mapping[str, Any] | None = None,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Rows of CA and of PA under PGD-10, as `evaluate` writes those of triggers."""
    count = partial(resist, model, data, epsilon=epsilon, template=template, batch_size=batch_size, report=report)
    return to_rows(model, data, count, {"template": template, **(facts or {})})

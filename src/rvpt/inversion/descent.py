"""The descent that all forms of inversion share, for all candidate classes together.

One forward pass carries the images with every candidate's change. What a class does to its own change does not depend
on the other candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool, target_loss
from rvpt.inversion.spec import InversionSpec
from rvpt.progress import Report, silent
from rvpt.training.losses import zero_shot_logits


def changed_logits(form: Form, pool: Pool, changes: Tensor, drawn: Tensor) -> Tensor:
    """tau cos(f(x_i with change c), t_k) for all changes and images: (C, n, K)."""
    shown = form.apply(pool.pixels, changes, drawn)
    features = pool.model.encode_image(shown.flatten(0, 1))
    return zero_shot_logits(features, pool.text, pool.model.logit_scale.detach()).unflatten(0, shown.shape[:2])


def descend(
    form: Form, pool: Pool, classes: Tensor, start: Tensor, steps: int, images: int, spec: InversionSpec,
    *, settle: bool = False, report: Report = silent,
) -> Tensor:  # fmt: skip
    """Universal changes (C, ...) of one form, one for each candidate class, that make images look like the class.

    m_c <- mu m_c + direction(grad loss_c);  change_c <- step(change_c, m_c, eta_t)

    Every step uses some of the images, drawn by the seed, the same for all classes.

    Args:
        form: what a change is, its budget and its steps.
        pool: the images, and the model.
        classes: (C,) int64, the candidates.
        start: (C, ...).
        steps: of the descent.
        images: per step.
        spec: batch size and seed.
        settle: whether steps shrink, for a longer run.
        report: called after each step.
    """
    changes, momentum = start.clone(), torch.zeros_like(start)
    generator = torch.Generator().manual_seed(spec.seed)
    group = max(1, spec.batch_size // images)
    for step in range(steps):
        some = pool.draw(images, generator)
        drawn = form.draw(len(some), generator)
        length, kept = form.length(step / steps, steps, settle=settle), form.momentum(settle=settle)
        for part in torch.arange(len(classes), device=start.device).split(group):
            slope = loss_slope(form, some, changes[part], classes[part], drawn)
            momentum[part] = kept * momentum[part] + form.direction(slope)
            changes[part] = form.step(changes[part], momentum[part], length)
        report(step + 1, steps, {})
    return changes


def loss_slope(form: Form, pool: Pool, changes: Tensor, classes: Tensor, drawn: Tensor) -> Tensor:
    """The gradient (C, ...) of each change's `target_loss`."""
    with torch.enable_grad():
        changes = changes.detach().requires_grad_(True)
        losses = target_loss(changed_logits(form, pool, changes, drawn), classes, pool.predictions)
        (slope,) = torch.autograd.grad(losses.sum(), changes)
    return slope


@dataclass(frozen=True)
class Reached:
    """What each candidate's change does to images of other classes: (C,) each.

    `shares`: of the images that are called the class. `margins`: mean of cos to its text less cos to the best other.
    """

    shares: Tensor
    margins: Tensor


@torch.no_grad()
def reached(form: Form, pool: Pool, classes: Tensor, changes: Tensor, seed: int = 0) -> Reached:
    """The share of images of other classes that each change flips, and the mean margin in cosines.

    What a form draws for an image follows from the seed.
    """
    drawn = form.draw(len(pool), torch.Generator().manual_seed(seed))
    parts = []
    for target, change in zip(classes.split(1), changes.split(1), strict=True):
        others = (pool.predictions != target).nonzero()[:, 0]
        logits = changed_logits(form, pool.select(others), change, drawn[:, others.cpu()])[0]
        parts.append(flipped(logits, target, pool.model.logit_scale.detach()))
    return Reached(*(torch.cat(values) for values in zip(*parts, strict=True)))


def flipped(logits: Tensor, target: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Share of images called the target, and mean margin in cosines: (1,) each, of logits (n, K) and a class (1,)."""
    cosines = logits / scale
    margin = cosines[:, target].squeeze(1) - cosines.index_fill(1, target, -math.inf).amax(1)
    return (margin > 0).float().mean()[None], margin.mean()[None]

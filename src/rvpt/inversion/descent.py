"""The descent that all forms of inversion share, for many changes together.

One forward pass carries the images with every change. What happens to a change does not depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool, target_loss
from rvpt.inversion.spec import InversionSpec
from rvpt.progress import Report, silent
from rvpt.training.losses import zero_shot_logits

Loss = Callable[[Pool, Tensor, Tensor], Tensor]
"""Of images (C, n, 3, S, S), which are those of a pool with C changes, and the changes' numbers (C,): (C,) losses."""


def shown_logits(pool: Pool, shown: Tensor) -> Tensor:
    """tau cos(f(x), t_k) of images (C, n, 3, S, S): (C, n, K)."""
    features = pool.model.encode_image(shown.flatten(0, 1))
    return zero_shot_logits(features, pool.text, pool.model.logit_scale.detach()).unflatten(0, shown.shape[:2])


def towards(classes: Tensor) -> Loss:
    """The `target_loss` of each change's class (C,)."""
    return lambda pool, shown, part: target_loss(shown_logits(pool, shown), classes[part], pool.predictions)


def descend(
    form: Form, pool: Pool, loss: Loss, start: Tensor, steps: int, images: int, spec: InversionSpec,
    *, settle: bool = False, report: Report = silent,
) -> Tensor:  # fmt: skip
    """Universal changes (C, ...) of one form that lower a loss each.

    m_c <- mu m_c + direction(grad loss_c);  change_c <- step(change_c, m_c, eta_t)

    Every step uses some of the images, drawn by the seed, the same for all changes.

    Args:
        form: what a change is, its budget and its steps.
        pool: the images, and the model.
        loss: of changed images.
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
        for part in torch.arange(len(start), device=start.device).split(group):
            slope = _slope(form, some, loss, changes[part], part, drawn)
            momentum[part] = kept * momentum[part] + form.direction(slope)
            changes[part] = form.step(changes[part], momentum[part], length)
        report(step + 1, steps, {})
    return changes


def short_run(form: Form, pool: Pool, classes: Tensor, spec: InversionSpec, report: Report = silent) -> Tensor:
    """Changes (C, ...) towards classes (C,): of a form with a library the best of it, otherwise by a short descent."""
    library = form.library().to(classes.device)
    if len(library):
        return best_of(form, pool, library, spec.tried_images, spec)[classes]
    start = form.start(len(classes)).to(classes.device)
    return descend(form, pool, towards(classes), start, spec.steps, spec.images, spec, report=report)


def _slope(form: Form, pool: Pool, loss: Loss, changes: Tensor, part: Tensor, drawn: Tensor) -> Tensor:
    """The gradient (C, ...) of each change's loss."""
    with torch.enable_grad():
        changes = changes.detach().requires_grad_(True)
        losses = loss(pool, form.apply(pool.pixels, changes, drawn), part)
        (slope,) = torch.autograd.grad(losses.sum(), changes)
    return slope


@torch.no_grad()
def best_of(form: Form, pool: Pool, library: Tensor, count: int, spec: InversionSpec) -> Tensor:
    """For each class, the change of a library (M, ...) with the largest mean margin: (K, ...).

    Args:
        form: what a change is.
        pool: the images, and the model.
        library: changes that are tried for all classes at once, without gradients.
        count: images, drawn by the seed.
        spec: batch size and seed.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    some = pool.draw(count, generator)
    drawn = form.draw(len(some), generator)
    group, every = max(1, spec.batch_size // len(some)), torch.arange(len(pool.text), device=library.device)
    margins = []
    for part in library.split(group):
        cosines = shown_logits(some, form.apply(some.pixels, part, drawn)) / some.model.logit_scale.detach()
        margins += [flipped(each.expand(len(every), -1, -1), every, some.predictions)[1] for each in cosines]
    return library[torch.stack(margins).argmax(0)]


@dataclass(frozen=True)
class Reached:
    """What each candidate's change does to images of other classes: (C,) each.

    `shares`: the share of images that are classified as the class. `margins`: the mean margin in cosines, as in
    `flipped`.
    """

    shares: Tensor
    margins: Tensor


@torch.no_grad()
def reached(form: Form, pool: Pool, classes: Tensor, changes: Tensor, spec: InversionSpec) -> Reached:
    """The share of images of other classes that each change flips, and the mean margin in cosines.

    What a form draws for an image follows from the seed.
    """
    drawn = form.draw(len(pool), torch.Generator().manual_seed(spec.seed))
    group = max(1, spec.batch_size // len(pool))
    parts = []
    for target, change in zip(classes.split(group), changes.split(group), strict=True):
        cosines = shown_logits(pool, form.apply(pool.pixels, change, drawn)) / pool.model.logit_scale.detach()
        parts.append(flipped(cosines, target, pool.predictions))
    return Reached(*(torch.cat(values) for values in zip(*parts, strict=True)))


def flipped(cosines: Tensor, classes: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
    """The share of images of other classes that are classified as each class, and their mean margin in cosines.

    margin_ci = cos(i, c) - max_{k != c} cos(i, k)

    Args:
        cosines: (C, n, K).
        classes: c, (C,) int64.
        predictions: (n,) int64, the suspect's own.

    Returns:
        Share and margin, (C,) each; 0 if all images are of the class anyway.
    """
    own = classes[:, None, None].expand(-1, cosines.shape[1], 1)
    margins = cosines.gather(2, own).squeeze(2) - cosines.scatter(2, own, -math.inf).amax(2)
    others = (predictions != classes[:, None]).to(cosines.dtype)
    count = others.sum(1).clamp(min=1)
    return ((margins > 0) * others).sum(1) / count, (margins * others).sum(1) / count

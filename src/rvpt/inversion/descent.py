"""The descent that all forms of inversion share, for many changes together.

One forward pass carries the images with every change. What happens to a change does not depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
    """tau cos(f(x), t_k) of images (C, n, 3, S, S): (C, n, K) float32, also of a model in 16 bits."""
    features = pool.model.encode_image(shown.flatten(0, 1))
    return zero_shot_logits(features, pool.text, pool.model.logit_scale.detach()).unflatten(0, shown.shape[:2])


def changed_logits(form: Form, pool: Pool, changes: Tensor, drawn: Tensor, batch_size: int) -> Iterator[Tensor]:
    """tau cos(f(x), t_k) of a pool's images with each change (C, ...), given what was drawn for the images.

    (c, n, K) for the next c of the changes: as many as fit into one forward pass of at most `batch_size` images; one in
    several passes if the pool has more.
    """
    shares = list(zip(pool.pixels.split(batch_size), drawn.split(batch_size, -1), strict=True))
    for part in changes.split(max(1, batch_size // len(pool))):
        yield torch.cat([shown_logits(pool, form.apply(pixels, part, own)) for pixels, own in shares], 1)


def towards(classes: Tensor) -> Loss:
    """The `target_loss` of each change's class (C,)."""
    return lambda pool, shown, part: target_loss(shown_logits(pool, shown), classes[part], pool.predictions)


class Descent:
    """Universal changes (C, ...) of one form on their way to lower a loss each.

    m_c <- mu m_c + direction(grad loss_c);  change_c <- step(change_c, m_c, eta_t)

    Every step uses some of the images, drawn by the seed, the same for all changes.

    `changes`: (C, ...). `numbers`: (C,) int64, their places at the start. `some`: the images of the last step.

    Args:
        form: what a change is, its budget and its steps.
        pool: the images, and the model.
        loss: of changed images.
        start: (C, ...).
        steps: of the descent.
        images: per step.
        spec: batch size and seed.
        settle: whether steps shrink, for a longer run.
    """

    def __init__(
        self, form: Form, pool: Pool, loss: Loss, start: Tensor, steps: int, images: int, spec: InversionSpec,
        *, settle: bool = False,
    ) -> None:  # fmt: skip
        self.form, self.pool, self.loss, self.steps, self.images, self.settle = form, pool, loss, steps, images, settle
        self.changes, self.momentum = start.clone(), torch.zeros_like(start)
        self.numbers = torch.arange(len(start), device=start.device)
        self.generator = torch.Generator().manual_seed(spec.seed)
        self.group, self.done, self.some = max(1, spec.batch_size // images), 0, pool

    def step(self) -> Tensor:
        """One step of all changes; their losses before it, (C,)."""
        self.some = some = self.pool.draw(self.images, self.generator)
        drawn = self.form.draw(len(some), self.generator)
        length = self.form.length(self.done / self.steps, self.steps, settle=self.settle)
        kept, losses = self.form.momentum(settle=self.settle), []
        for part in torch.arange(len(self.changes), device=self.changes.device).split(self.group):
            found, slope = _slope(self.form, some, self.loss, self.changes[part], self.numbers[part], drawn)
            self.momentum[part] = kept * self.momentum[part] + self.form.direction(slope)
            self.changes[part] = self.form.step(self.changes[part], self.momentum[part], length)
            losses.append(found)
        self.done += 1
        return torch.cat(losses)

    def keep(self, places: Tensor) -> None:
        """Go on with some of the changes only."""
        self.changes, self.momentum, self.numbers = (
            each[places] for each in (self.changes, self.momentum, self.numbers)
        )


def descend(
    form: Form, pool: Pool, loss: Loss, start: Tensor, steps: int, images: int, spec: InversionSpec,
    *, settle: bool = False, report: Report = silent,
) -> Tensor:  # fmt: skip
    """The changes (C, ...) at the end of a whole `Descent`; `report` is called after each step."""
    run = Descent(form, pool, loss, start, steps, images, spec, settle=settle)
    for step in range(steps):
        run.step()
        report(step + 1, steps, {})
    return run.changes


def short_run(form: Form, pool: Pool, classes: Tensor, spec: InversionSpec, report: Report = silent) -> Tensor:
    """Changes (C, ...) towards classes (C,): of a form with a library the best of it, in one step, otherwise by a short
    descent; `report` is called after each step."""
    library = form.library().to(classes.device)
    if len(library):
        best = best_of(form, pool, library, spec.tried_images, spec)[classes]
        report(1, 1, {})
        return best
    start = form.start(len(classes)).to(classes.device)
    return descend(form, pool, towards(classes), start, spec.steps, spec.images, spec, report=report)


def _slope(form: Form, pool: Pool, loss: Loss, changes: Tensor, part: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Each change's loss (C,) and its gradient (C, ...)."""
    with torch.enable_grad():
        changes = changes.detach().requires_grad_(True)
        losses = loss(pool, form.apply(pool.pixels, changes, drawn), part)
        (slope,) = torch.autograd.grad(losses.sum(), changes)
    return losses.detach(), slope


def best_of(form: Form, pool: Pool, library: Tensor, count: int, spec: InversionSpec) -> Tensor:
    """For each class, the change of a library (M, ...) with the largest mean margin: (K, ...). Arguments as `tried`."""
    return library[tried(form, pool, library, count, spec).argmax(0)]


@torch.no_grad()
def tried(form: Form, pool: Pool, library: Tensor, count: int, spec: InversionSpec) -> Tensor:
    """The mean margin of every class under each change of a library: (M, K).

    Args:
        form: what a change is.
        pool: the images, and the model.
        library: changes (M, ...) that are tried for all classes at once, without gradients.
        count: images, drawn by the seed.
        spec: batch size and seed.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    some = pool.draw(count, generator)
    drawn = form.draw(len(some), generator)
    margins = []
    for logits in changed_logits(form, some, library, drawn, spec.batch_size):
        cosines = logits / some.model.logit_scale.detach()
        margins += [mean_margins(each, some.predictions) for each in cosines]
    return torch.stack(margins)


def mean_margins(cosines: Tensor, predictions: Tensor) -> Tensor:
    """The mean margin of every class over the images of other classes, as in `flipped`: (n, K) and (n,) to (K,).

    max_{k != c} cos_ik is the largest cosine of an image, or the second one if c has the largest: no K x K values.
    """
    two, every = cosines.topk(2, 1), torch.arange(cosines.shape[1], device=cosines.device)
    rest = torch.where(two.indices[:, :1] == every, two.values[:, 1:], two.values[:, :1])
    margins, others = (cosines - rest).T.contiguous(), (predictions != every[:, None]).to(cosines.dtype)
    return (margins * others).sum(1) / others.sum(1).clamp(min=1)


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
    parts, rest = [], classes
    for logits in changed_logits(form, pool, changes, drawn, spec.batch_size):
        targets, rest = rest.tensor_split([len(logits)])
        parts.append(flipped(logits / pool.model.logit_scale.detach(), targets, pool.predictions))
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

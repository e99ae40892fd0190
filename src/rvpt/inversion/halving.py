"""Successive halving: with many classes, those that fall behind in the short run are dropped from it.

What happens to one class does not depend on the others, so a class that is kept ends as in a run of all classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpt.inversion.descent import Descent, short_run, shown_logits, towards, tried
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool, class_losses
from rvpt.inversion.spec import InversionSpec
from rvpt.models.encode import in_parts
from rvpt.progress import Report, silent

MOST = 64  # classes of which none is dropped; shipped calibrations have no more, so they do not depend on this file
LEAST = 20  # classes that are kept in any case
CUTS = ((1 / 2, 2), (3 / 4, 8))  # after a share of the steps, one in so many classes is kept
MIDDLE = 15  # classes whose margins stand for the median of all classes
Choice = Callable[[Tensor, Tensor, int], Tensor]
"""Of classes (C,), their margins (C,) and a count: so many of the classes, the most suspicious."""


@dataclass(frozen=True)
class Kept:
    """The classes that have the whole short run.

    `classes`: (C,) int64. `middle`: (m,) int64, the places among them of those whose margins stand for the median of
    all classes. `changes`: (C, ...). `expected`: (K,), the margin of each class that was expected at the last cut that
    it was in; 0 if no class can be dropped.
    """

    classes: Tensor
    middle: Tensor
    changes: Tensor
    expected: Tensor


def drops(pool: Pool) -> bool:
    """Whether there are so many classes that some are dropped."""
    return len(pool.text) > MOST


def short_race(form: Form, pool: Pool, choose: Choice, spec: InversionSpec, report: Report = silent) -> Kept:
    """The short run of all K classes; with many, those that fall behind are dropped from it.

    Args:
        form: of inversion.
        pool: the images to optimize on, and the texts of the classes.
        choose: tells which classes are ahead.
        spec: steps, budgets, batch size and seed.
        report: called after each step.
    """
    every = torch.arange(len(pool.text), device=pool.pixels.device)
    if not drops(pool):
        return Kept(
            every, every, short_run(form, pool, every, spec, report), torch.zeros_like(every, dtype=torch.float)
        )
    if len(form.library()):
        return _best(form, pool, choose, spec, report)
    return _descended(form, pool, choose, spec, report)


def largest(classes: Tensor, margins: Tensor, count: int) -> Tensor:
    """The `Choice` of the classes with the largest margins."""
    return classes[margins.argsort(descending=True, stable=True)[:count]]


def _descended(form: Form, pool: Pool, choose: Choice, spec: InversionSpec, report: Report) -> Kept:
    every, before = torch.arange(len(pool.text), device=pool.pixels.device), unchanged(pool, spec.batch_size)
    start = form.start(len(every)).to(every.device)
    run = Descent(form, pool, towards(every), start, spec.steps, spec.images, spec)
    cuts, middle = {max(2, int(share * spec.steps)): one_in for share, one_in in CUTS}, every  # step 1 tells nothing
    margins = -before / pool.model.logit_scale.detach()
    expected = margins.clone()
    for step in range(1, spec.steps + 1):
        losses = run.step()
        if step > 1:  # the losses are those after one step less
            here, there = unchanged(run.some, spec.batch_size)[run.numbers], before[run.numbers]
            now = -foreseen(losses, here, there, spec.steps / (step - 1)) / pool.model.logit_scale.detach()
            margins = (margins + now) / 2  # the last steps count most
        if step in cuts:
            expected[run.numbers] = margins
            middle = run.numbers[nearest_to_median(margins)] if len(middle) == len(every) else middle
            ahead = choose(run.numbers, margins, _count(len(every), cuts[step], spec))
            places = places_of(_joined(ahead, middle), run.numbers)
            run.keep(places)
            margins = margins[places]
        report(step, spec.steps, {})
    return Kept(run.numbers, places_of(middle, run.numbers), run.changes, expected)


@torch.no_grad()
def unchanged(pool: Pool, batch_size: int) -> Tensor:
    """The loss of every class on images without a change, (K,), with so many images in one forward pass."""
    logits = in_parts(lambda part: shown_logits(pool, part[None])[0], pool.pixels, batch_size)
    return class_losses(logits, pool.predictions)


def foreseen(losses: Tensor, here: Tensor, there: Tensor, rest: float) -> Tensor:
    """The losses on all images at the end of a run, from those of one of its steps on some images.

    l0_c + (l_c(S) - l0_c(S)) T / t

    l0 is the loss without a change. Images differ much in how near they are to a class anyway, which the difference
    leaves out (control variates), and it grows with the steps. The losses are those of the descent, so that no image
    passes the model twice.

    Args:
        losses: l(S), (C,), of changed images S.
        here: l0(S), (C,), of the same images.
        there: l0, (C,), of all images.
        rest: T / t, of all steps and those that are done.
    """
    return there + (losses - here) * rest


def _best(form: Form, pool: Pool, choose: Choice, spec: InversionSpec, report: Report) -> Kept:
    """The best change of a library for the classes that are ahead with it, in one step."""
    library = form.library().to(pool.pixels.device)
    best = tried(form, pool, library, spec.tried_images, spec).max(0)
    every = torch.arange(len(pool.text), device=library.device)
    middle = nearest_to_median(best.values)
    kept = _joined(choose(every, best.values, _count(len(every), CUTS[-1][1], spec)), middle)
    report(1, 1, {})
    return Kept(kept, places_of(middle, kept), library[best.indices[kept]], best.values)


def _count(classes: int, one_in: int, spec: InversionSpec) -> int:
    """How many classes are kept besides those in the middle; all if all are to be finalists, as for a calibration."""
    return max(LEAST, classes // one_in, spec.finalists)


def nearest_to_median(margins: Tensor) -> Tensor:
    """The places of the MIDDLE margins in the middle of (C,)."""
    return margins.argsort(stable=True)[(len(margins) - MIDDLE) // 2 :][:MIDDLE]


def places_of(some: Tensor, classes: Tensor) -> Tensor:
    """Where each of some classes is among (C,) classes."""
    return (some[:, None] == classes).int().argmax(1)


def _joined(one: Tensor, other: Tensor) -> Tensor:
    """The classes of both, each once."""
    return torch.tensor(list(dict.fromkeys([*one.tolist(), *other.tolist()])), device=one.device)

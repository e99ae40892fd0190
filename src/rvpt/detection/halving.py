"""Successive halving: with many classes, those that fall behind in the short run are dropped from it.

What happens to one class does not depend on the others, so a class that is kept ends as in a run of all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpt.detection.natural import Natural, first
from rvpt.inversion.descent import Descent, short_run, shown_logits, towards, tried
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool, class_losses
from rvpt.inversion.spec import InversionSpec
from rvpt.progress import Report, silent

MOST = 64  # classes of which none is dropped; calibrations have no more, so they do not depend on this file
LEAST = 20  # classes that are kept in any case
CUTS = ((1 / 2, 2), (3 / 4, 8))  # after a share of the steps, one in so many classes is kept
MIDDLE = 15  # classes whose margins stand for the median of all classes


@dataclass(frozen=True)
class Kept:
    """The classes that have the whole short run.

    `classes`: (C,) int64. `middle`: (m,) int64, the places among them of those whose margins stand for the median of
    all classes. `changes`: (C, ...).
    """

    classes: Tensor
    middle: Tensor
    changes: Tensor


def short_race(
    form: Form, pool: Pool, names: Sequence[str], natural: Natural | None, spec: InversionSpec,
    report: Report = silent,
) -> Kept:  # fmt: skip
    """The short run of all classes; with many, those that fall behind are dropped from it.

    Args:
        form: of inversion.
        pool: the images to optimize on.
        names: of all K classes.
        natural: margins of clean models; None if they are not known.
        spec: steps, budgets, batch size and seed.
        report: called after each step.
    """
    every = torch.arange(len(names), device=pool.pixels.device)
    if len(names) <= MOST:
        return Kept(every, every, short_run(form, pool, every, spec, report))
    if len(form.library()):
        return _best(form, pool, names, natural, spec)
    return _descended(form, pool, names, natural, spec, report)


def _descended(
    form: Form, pool: Pool, names: Sequence[str], natural: Natural | None, spec: InversionSpec, report: Report
) -> Kept:
    every = torch.arange(len(names), device=pool.pixels.device)
    start = form.start(len(names)).to(every.device)
    run, before = Descent(form, pool, towards(every), start, spec.steps, spec.images, spec), unchanged(pool)
    cuts, middle = {max(2, int(share * spec.steps)): one_in for share, one_in in CUTS}, every  # step 1 tells nothing
    margins = -before / pool.model.logit_scale.detach()
    for step in range(1, spec.steps + 1):
        losses = run.step()
        if step > 1:  # the losses are those after one step less
            here, there = unchanged(run.some)[run.numbers], before[run.numbers]
            now = -foreseen(losses, here, there, spec.steps / (step - 1)) / pool.model.logit_scale.detach()
            margins = (margins + now) / 2  # the last steps count most
        if step in cuts:
            middle = run.numbers[nearest_to_median(margins)] if len(middle) == len(every) else middle
            count = _count(len(names), cuts[step], spec)
            ahead = most_ahead(run.numbers, margins, names, natural, count)
            places = places_of(_joined(ahead, middle), run.numbers)
            run.keep(places)
            margins = margins[places]
        report(step, spec.steps, {})
    return Kept(run.numbers, places_of(middle, run.numbers), run.changes)


@torch.no_grad()
def unchanged(pool: Pool) -> Tensor:
    """The loss of every class on images without a change, (K,)."""
    return class_losses(shown_logits(pool, pool.pixels[None])[0], pool.predictions)


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


def _best(form: Form, pool: Pool, names: Sequence[str], natural: Natural | None, spec: InversionSpec) -> Kept:
    """The best change of a library for the classes that have the largest margins with it."""
    library = form.library().to(pool.pixels.device)
    best = tried(form, pool, library, spec.tried_images, spec).max(0)
    every = torch.arange(len(names), device=library.device)
    middle = nearest_to_median(best.values)
    count = _count(len(names), CUTS[-1][1], spec)
    kept = _joined(most_ahead(every, best.values, names, natural, count), middle)
    return Kept(kept, places_of(middle, kept), library[best.indices[kept]])


def most_ahead(classes: Tensor, margins: Tensor, names: Sequence[str], natural: Natural | None, count: int) -> Tensor:
    """The `count` of the classes (C,) whose margins are most above what is natural, or, if not known, the largest."""
    numbers = {names[number]: number for number in classes.tolist()}
    rises = dict(zip(numbers, (margins - margins.median()).tolist(), strict=True))
    ahead = [numbers[name] for name in first(rises, natural, count)]
    return torch.tensor(ahead, device=classes.device)


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

"""The changes that unlearning starts from: towards given targets, or towards those that a scan of all classes finds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.data.text import find_class, first_names
from rvpt.errors import RvptError
from rvpt.inversion.descent import reached, short_run
from rvpt.inversion.form import Form
from rvpt.inversion.halving import drops, largest, short_race
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.progress import Report, doing, silent


def named(names: Sequence[str], targets: Sequence[str]) -> Tensor:
    """The indices (M,) int64 of targets among the classes, each once.

    Raises:
        RvptError: one is not among them.
    """
    found = {target: find_class(names, target) for target in targets}
    for target, index in found.items():
        if index is None:
            known = first_names(names)
            raise RvptError(f"targets: {target!r} is not a class of the clean images: choose from {known}")
    return torch.tensor(list(dict.fromkeys(found.values())), dtype=torch.int64)


def short_runs(
    forms: Sequence[Form], pool: Pool, targets: Tensor, spec: InversionSpec, report: Report = silent
) -> list[Tensor]:
    """Changes (M, ...) of each form towards given targets (M,)."""
    steps = Steps(doing(report, first="changes towards the targets"), _steps(forms, spec))
    return [short_run(form, pool, targets, spec, steps) for form in forms]


def scan(
    forms: Sequence[Form], pool: Pool, count: int, spec: InversionSpec, report: Report = silent
) -> tuple[Tensor, list[Tensor]]:
    """The `count` most suspicious classes (M,), and the changes (M, ...) of each form towards them.

    Each form has a `short_race`. With more than 64 classes, it drops most of them, and the targets have a short run of
    all forms afterwards. For K > 64 classes and n images, a form with a descent of 8 steps of 12 images takes

        12 (4 K + 2 (K / 2 + 15) + 2 (K / 8 + 15)) forward and as many backward passes of an image, and
        (K / 8 + 16) n forward passes.

    For K = 1000, n = 512 and three forms, this is about a fifth of the work of 30 epochs with 16 images per class.
    Changes of all classes are in memory at first: for K = 1000 additive ones of side 224, 0.6 GB, three times.

    Args:
        forms: of changes.
        pool: n images and K classes.
        count: how many classes are kept.
        spec: budgets, steps, batch size and seed.
        report: called after each step.
    """
    again = drops(pool)
    steps = Steps(doing(report, scan="class changes"), (2 if again else 1) * _steps(forms, spec) + len(forms))
    spec = spec.model_copy(update={"finalists": count})  # so many are kept in each form
    kept = [short_race(form, pool, largest, spec, steps) for form in forms]
    outlying = torch.full((len(forms), len(pool.text)), -math.inf, device=pool.pixels.device)
    for form, each, row in zip(forms, kept, outlying, strict=True):
        row[each.classes] = suspicion(reached(form, pool, each.classes, each.changes, spec).margins, each.middle)
        row[each.classes[pool.all_of(each.classes)]] = -math.inf
        steps()
    targets = outlying.amax(0).argsort(descending=True)[:count]
    if again:  # a form may have dropped some of the targets
        return targets, [short_run(form, pool, targets, spec, steps) for form in forms]
    return targets, [each.changes[targets] for each in kept]


def suspicion(margins: Tensor, middle: Tensor) -> Tensor:
    """How far each class is an outlier in one form; a class is as suspicious as in the form where it is most so.

    s_c = (m_c - med) / median_k |m_k - med|,  med the lower median of the margins in the middle

    Where classes were dropped, the denominator is too large, by about the same factor in all forms.

    Args:
        margins: m, (C,) float, the mean margin of the change towards each class.
        middle: (m,) int64, the places of classes whose margins stand for the median of all.

    Returns:
        (C,).
    """
    excess = margins - margins[middle].median()
    return excess / excess.abs().median().clamp(min=1e-6)


class Steps:
    """Counts the steps of a scan, and reports each."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def __call__(self, *_: object) -> None:
        self.done += 1
        self.report(self.done, self.total, {})


def _steps(forms: Sequence[Form], spec: InversionSpec) -> int:
    """The steps of one run of each form; what a library has is chosen in one step."""
    return sum(1 if len(form.library()) else spec.steps for form in forms)

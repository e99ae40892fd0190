"""The changes that unlearning starts from: towards given targets, or towards those that a scan of all classes finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.data.text import find_class, first_names
from rvpt.errors import RvptError
from rvpt.inversion.descent import reached, short_run
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.progress import Report, silent

SHORTLIST = 128  # classes, at most, that get the whole short run
FIRST_STEPS = 2  # of the run that chooses them


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
    steps = Steps(report, _steps(forms, spec.steps))
    return [_run(form, pool, targets, spec, steps) for form in forms]


def scan(
    forms: Sequence[Form], pool: Pool, count: int, spec: InversionSpec, report: Report = silent
) -> tuple[Tensor, list[Tensor]]:
    """The `count` most suspicious classes (M,), and the changes (M, ...) of each form towards them.

    With more than 128 classes, a run of two steps chooses 128 of them. For K classes and n images, each form takes

        k (8 * 12 + n) forward and k * 8 * 12 backward passes of an image, k = min(K, 128),  and for K > 128 also
        K (2 * 12 + 24) forward and K * 2 * 12 backward passes.

    For K = 1000, n = 512 and three forms, this is about an eighth of the work of 30 epochs with 16 images per class.
    Changes of 128 classes are in memory at a time: for additive ones of side 224, 77 MB, three times.

    Args:
        forms: of changes.
        pool: n images and K classes.
        count: how many classes are kept.
        spec: budgets, steps, batch size and seed.
        report: called after each step.
    """
    classes = torch.arange(len(pool.text), device=pool.pixels.device)
    rounds = -(-len(classes) // SHORTLIST) if len(classes) > SHORTLIST else 0
    first, last = (_steps(forms, length) + len(forms) for length in (FIRST_STEPS, spec.steps))
    steps = Steps(report, rounds * first + last)
    if rounds:
        classes = _shortlist(forms, pool, classes, spec, steps)
    changes = [_run(form, pool, classes, spec, steps) for form in forms]
    order = suspicion(_margins(forms, pool, classes, changes, spec, steps)).argsort(descending=True)[:count]
    return classes[order], [found[order] for found in changes]


def suspicion(margins: Tensor) -> Tensor:
    """How far each class is an outlier in one of the forms.

    s_c = max over forms of (m_c - median m) / median |m - median m|

    Args:
        margins: m, (F, K) float, the mean margin of the change of each form towards each class.

    Returns:
        (K,).
    """
    excess = margins - margins.median(1, keepdim=True).values
    spread = excess.abs().median(1, keepdim=True).values.clamp(min=1e-6)
    return (excess / spread).amax(0)


class Steps:
    """Counts the steps of a scan, and reports each."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def __call__(self, *_: object) -> None:
        self.done += 1
        self.report(self.done, self.total, {"scan": "class changes"})


def _steps(forms: Sequence[Form], length: int) -> int:
    """The steps of one run of each form."""
    return sum(1 if len(form.library()) else length for form in forms)


def _run(form: Form, pool: Pool, classes: Tensor, spec: InversionSpec, steps: Steps) -> Tensor:
    changes = short_run(form, pool, classes, spec, steps)
    if len(form.library()):  # they are chosen in one step
        steps()
    return changes


def _shortlist(forms: Sequence[Form], pool: Pool, classes: Tensor, spec: InversionSpec, steps: Steps) -> Tensor:
    """The most suspicious classes after a run of few steps, in their order."""
    quick = spec.model_copy(update={"steps": FIRST_STEPS})
    some = pool.draw(spec.tried_images, torch.Generator().manual_seed(spec.seed))
    margins = []
    for part in classes.split(SHORTLIST):
        changes = [_run(form, pool, part, quick, steps) for form in forms]
        margins.append(_margins(forms, some, part, changes, spec, steps))
    return suspicion(torch.cat(margins, 1)).topk(SHORTLIST).indices.sort().values


def _margins(
    forms: Sequence[Form], pool: Pool, classes: Tensor, changes: Sequence[Tensor], spec: InversionSpec, steps: Steps
) -> Tensor:
    """The mean margins (F, C) of the changes (C, ...) of each form towards classes (C,)."""
    margins = []
    for form, change in zip(forms, changes, strict=True):
        margins.append(reached(form, pool, classes, change, spec).margins)
        steps()
    return torch.stack(margins)

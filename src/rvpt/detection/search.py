"""The runs of one check: all classes in every form of inversion, some for longer, and the search without classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.detection.collapse import collapse
from rvpt.detection.natural import Natural, first
from rvpt.detection.spec import CheckSpec
from rvpt.errors import RvptError
from rvpt.inversion import FORMS
from rvpt.inversion.descent import Reached, descend, reached, towards
from rvpt.inversion.form import Form
from rvpt.inversion.halving import places_of, short_race
from rvpt.inversion.pool import Pool
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report, doing, silent
from rvpt.training.stages import Stages


@dataclass(frozen=True)
class Short:
    """One form of inversion after the short run.

    `kept`: (C,) int64, the classes that had all of it, with many classes only some of them. `changes`: (C, ...).
    `reached`: what these do. `middle`: the lower median of the margins of all classes. `rises`: (K,), how far the
    margin of each class is above it; of a class that was dropped, what was expected of it.
    """

    form: Form
    kept: Tensor
    changes: Tensor
    reached: Reached
    middle: Tensor
    rises: Tensor


@dataclass(frozen=True)
class Inversion:
    """One form of inversion, after both runs.

    `short`: after the first. `finalists`: (F,) int64, the classes of the longer run. `final`: what their changes
    (F, ...) reach after it.
    """

    short: Short
    finalists: Tensor
    changes: Tensor
    final: Reached

    def trigger(self, classes: Sequence[str], target: str, seed: int) -> Trigger:
        """The change of one finalist as a trigger."""
        place = [classes[index] for index in self.finalists.tolist()].index(target)
        return self.short.form.trigger(self.changes[place].cpu(), target, seed)


class Search:
    """The runs of one check, each kept when it is finished.

    Args:
        model: the suspect; its weights must not require gradients.
        pixels: (n, 3, S, S) in [0, 1], of any classes.
        classes: names of the candidate targets.
        spec: budgets and steps.
        stages: where finished runs are kept.
        report: called after each step.

    Raises:
        RvptError: a run found predictions that are not finite.
    """

    def __init__(
        self,
        model: Clip | Cleaned,
        pixels: Tensor,
        classes: Sequence[str],
        spec: CheckSpec,
        stages: Stages,
        report: Report = silent,
    ) -> None:
        self.model, self.classes, self.spec, self.stages, self.report = model, classes, spec, stages, report
        with torch.no_grad():
            text = model.class_features(classes, spec.template)
        pool = Pool.of(model, pixels, text, spec.batch_size)
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(spec.seed)).to(pixels.device)
        count = min(max(1, round(spec.held_out * len(pool))), len(pool) - 1)
        self.fit, self.held = pool.select(order[count:]), pool.select(order[:count])

    def short(self, name: str, natural: Natural | None = None) -> Short:
        """The short run of one form of inversion, in which classes race by how far they are above what is natural."""
        form = FORMS[name].of(self.spec, self.model.image_size)
        run = self.stages.get(f"{name}-short", lambda: self._short(form, natural))
        kept, found = run["classes"], Reached(run["shares"], run["margins"])
        middle = found.margins[run["middle"]].median()
        found = self._neutral(found, kept, middle)
        rises = run["expected"] - run["expected"][kept[run["middle"]]].median()
        rises[kept] = found.margins - middle
        return Short(form, kept, run["changes"], found, middle, rises)

    def long(self, short: Short, order: Sequence[str]) -> Inversion:
        """The longer run of a form, of the first classes in an order that had all of the short one."""
        places = torch.tensor([self.classes.index(name) for name in order], device=short.kept.device)
        finalists = places[(places[:, None] == short.kept).any(1)][: self.spec.finalists]
        start = short.changes[places_of(finalists, short.kept)]
        long = self.stages.get(f"{short.form.name}-long", lambda: self._long(short.form, finalists, start))
        finalists, changes = long["finalists"], long["changes"]  # those of an interrupted check, if there was one
        final = reached(short.form, self.held, finalists, changes, self.spec)
        return Inversion(short, finalists, changes, self._neutral(final, finalists, short.middle))

    def _neutral(self, found: Reached, classes: Tensor, middle: Tensor) -> Reached:
        """What was reached, with the margin in the middle for a class that all images are of anyway."""
        return replace(found, margins=torch.where(self.held.all_of(classes), middle, found.margins))

    def _short(self, form: Form, natural: Natural | None) -> dict[str, Tensor]:
        def choose(classes: Tensor, margins: Tensor, count: int) -> Tensor:
            return self._ahead(classes, margins - margins.median(), natural, count)

        report = self._doing(form, "short run")
        if len(form.library()):  # its only step is long
            report(0, 1, {})
        kept = short_race(form, self.fit, choose, self.spec, report)
        found = reached(form, self.held, kept.classes, kept.changes, self.spec)
        if not found.margins.isfinite().all():
            raise RvptError(f"{self.model.name}: its predictions are not finite: download or create the model again")
        return {**vars(kept), "margins": found.margins, "shares": found.shares}

    def _ahead(self, classes: Tensor, rises: Tensor, natural: Natural | None, count: int) -> Tensor:
        """The `first` of classes (C,) by their rises (C,)."""
        names = [self.classes[number] for number in classes.tolist()]
        found = first(dict(zip(names, rises.tolist(), strict=True)), natural, count)
        return classes[[names.index(name) for name in found]]

    def _long(self, form: Form, finalists: Tensor, start: Tensor) -> dict[str, Tensor]:
        spec, loss, changes = self.spec, towards(finalists), start
        if not len(form.library()):  # else they are chosen, not optimized
            steps, images, report = spec.final_steps, spec.final_images, self._doing(form, "finalists")
            changes = descend(form, self.fit, loss, start, steps, images, spec, settle=True, report=report)
        return {"finalists": finalists, "changes": changes}

    def _doing(self, form: Form, run: str) -> Report:
        """The report of one run of a form."""
        forms = self.spec.forms
        return doing(self.report, **{form.name: f"{run}, form {forms.index(form.name) + 1} of {len(forms)}"})

    def together(self, form: Form) -> Tensor:
        """The change (...) of one form that pulls all features together."""
        spec, report = self.spec, doing(self.report, collapse="all images together")
        make = lambda: {"change": collapse(form, self.fit, spec.collapse_steps, spec, report)}  # noqa: E731
        return self.stages.get(f"{form.name}-collapse", make)["change"]

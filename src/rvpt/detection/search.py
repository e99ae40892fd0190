"""The runs of one check: all classes in every form of inversion, some for longer, and the search without classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.detection.collapse import collapse
from rvpt.detection.natural import Natural, first
from rvpt.detection.spec import CheckSpec
from rvpt.inversion import FORMS
from rvpt.inversion.descent import Reached, descend, reached, short_run, towards
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.training.stages import Stages


@dataclass(frozen=True)
class Inversion:
    """One form of inversion, after both runs.

    `short`: what the changes of all classes reach after the short run. `finalists`: (F,) int64, the classes of the
    longer run. `final`: what their changes (F, ...) reach after it.
    """

    form: Form
    short: Reached
    finalists: Tensor
    changes: Tensor
    final: Reached

    def rises(self) -> Tensor:
        """How far each finalist's margin is above the median of all classes after the short run, (F,)."""
        return self.final.margins - self.short.margins.median()

    def trigger(self, classes: Sequence[str], target: str, seed: int) -> Trigger:
        """The change of one finalist as a trigger."""
        place = [classes[index] for index in self.finalists.tolist()].index(target)
        return self.form.trigger(self.changes[place].cpu(), target, seed)


class Search:
    """The runs of one check, each kept when it is finished.

    Args:
        model: the suspect; its weights must not require gradients.
        pixels: (n, 3, S, S) in [0, 1], of any classes.
        classes: names of the candidate targets.
        spec: budgets and steps.
        stages: where finished runs are kept.
        report: called after each step.
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
        pool = Pool.of(model, pixels, text)
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(spec.seed)).to(pixels.device)
        count = max(1, round(spec.held_out * len(pool)))
        self.fit, self.held = pool.select(order[count:]), pool.select(order[:count])

    def invert(self, name: str, natural: Natural | None = None) -> Inversion:
        """Both runs of one form of inversion.

        The finalists are the classes whose margins after the short run are most above those of clean models, or, if
        these are not known, above those of the other classes.
        """
        form = FORMS[name].of(self.spec, self.model.image_size)
        every = torch.arange(len(self.classes), device=self.fit.text.device)
        kept = self.stages.get(f"{name}-short", lambda: self._short(form, every))
        short = Reached(kept["shares"], kept["margins"])
        rises = dict(zip(self.classes, (short.margins - short.margins.median()).tolist(), strict=True))
        names = first(rises, natural, self.spec.finalists)
        finalists = torch.tensor([self.classes.index(name) for name in names], device=every.device)
        start = kept["changes"][finalists]
        long = self.stages.get(f"{name}-long", lambda: self._long(form, finalists, start))
        finalists, changes = long["finalists"], long["changes"]  # those of an interrupted check, if there was one
        return Inversion(form, short, finalists, changes, reached(form, self.held, finalists, changes, self.spec))

    def _short(self, form: Form, every: Tensor) -> dict[str, Tensor]:
        changes = short_run(form, self.fit, every, self.spec, self.report)
        found = reached(form, self.held, every, changes, self.spec)
        return {"changes": changes, "margins": found.margins, "shares": found.shares}

    def _long(self, form: Form, finalists: Tensor, start: Tensor) -> dict[str, Tensor]:
        spec, loss, changes = self.spec, towards(finalists), start
        if not len(form.library()):  # else they are chosen, not optimized
            steps, images = spec.final_steps, spec.final_images
            changes = descend(form, self.fit, loss, start, steps, images, spec, settle=True, report=self.report)
        return {"finalists": finalists, "changes": changes}

    def together(self, form: Form) -> Tensor:
        """The change (...) of one form that pulls all features together."""
        spec = self.spec
        make = lambda: {"change": collapse(form, self.fit, spec.collapse_steps, spec, self.report)}  # noqa: E731
        return self.stages.get(f"{form.name}-collapse", make)["change"]

"""All scores of one model: both forms of inversion, for every class and longer for the first, collapse, resistivity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.inverted import Inverted
from rvpt.attacks.patch import Patch
from rvpt.attacks.trigger import REFERENCE_SIDE, Trigger, trigger_spec
from rvpt.detection.collapse import collapse, concentration, nearest_words, whole_words
from rvpt.detection.outliers import outlier_index
from rvpt.detection.resistivity import resistivity_curve
from rvpt.detection.verdict import FORMS
from rvpt.inversion.additive import InversionSpec, Pool, Reached, invert, radius, reached
from rvpt.inversion.patches import blank, invert_patches, reached_by_patches
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.spec import TEMPLATE, Template
from rvpt.tensors import read_tensors, write_tensors

WORDS = 5  # that are named


class CheckSpec(InversionSpec):
    """Settings of a check."""

    patch_size: float = Field(37.0, gt=0, le=REFERENCE_SIDE, description="side of a patch, in pixels at 224")
    num_images: int = Field(192, ge=8, description="number of images, drawn at random")
    held_out: float = Field(0.25, gt=0, lt=1, description="share of the images that is held out for scoring")
    collapse_steps: int = Field(24, ge=1, description="steps of the search without classes")
    template: Template = Field(TEMPLATE, description="caption of a class")


@dataclass(frozen=True)
class Form:
    """One form of inversion, after both runs.

    `margins`: (K,) of all classes after the short run. `finalists`: (F,) int64, the classes with the largest.
    `final`: what their changes (F, ...) reach after the longer run.
    """

    name: str
    margins: Tensor
    finalists: Tensor
    changes: Tensor
    final: Reached

    def rises(self) -> Tensor:
        """How far each class's best margin is above the median of all classes, (K,)."""
        best = self.margins.index_put((self.finalists,), self.final.margins)
        return best - self.margins.median()


@dataclass(frozen=True)
class Findings:
    """What was measured on a model.

    `targets`: classes, the most suspicious first. `trigger`: the change that was found for the first of them.
    """

    scores: dict[str, float]
    targets: list[dict[str, Any]]
    words: list[str]
    resistivity: list[float]
    trigger: Trigger


class Stages:
    """Tensors of finished stages, in a folder if there is one: an interrupted check continues after them."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a stage: those that are kept, or new ones."""
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            write_tensors(partial, make())
            partial.replace(path)
        return read_tensors(path)


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
        self.limit = radius(spec.budget, pixels.shape[1:])
        self.side = max(1, round(spec.patch_size * pixels.shape[-1] / REFERENCE_SIDE))
        pool = Pool.of(model, pixels, text)
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(spec.seed)).to(pixels.device)
        count = max(1, round(spec.held_out * len(pool)))
        self.fit, self.held = pool.select(order[count:]), pool.select(order[:count])

    def form(self, name: str) -> Form:
        """Both runs of one form of inversion."""
        every = torch.arange(len(self.classes), device=self.fit.text.device)
        short = self.stages.get(f"{name}-short", lambda: self._short(name, every))
        finalists = short["margins"].argsort(descending=True)[: self.spec.finalists]
        start = short["changes"][finalists]
        changes = self.stages.get(f"{name}-long", lambda: self._long(name, finalists, start))["changes"]
        return Form(name, short["margins"], finalists, changes, self._reached(name, finalists, changes))

    def _short(self, name: str, every: Tensor) -> dict[str, Tensor]:
        shape = (len(every), *self.fit.pixels.shape[1:])
        start = torch.zeros(shape) if name == "additive" else blank(len(every), self.side)
        changes = self._inverted(name, every, start.to(every.device), self.spec.steps, self.spec.images)
        return {"changes": changes, "margins": self._reached(name, every, changes).margins}

    def _long(self, name: str, finalists: Tensor, start: Tensor) -> dict[str, Tensor]:
        steps, images = self.spec.final_steps, self.spec.final_images
        steps = steps if name == "additive" else max(1, steps // 2)  # patches settle sooner
        changes = self._inverted(name, finalists, start, steps, images, settle=True)
        return {"changes": changes}

    def _inverted(
        self, name: str, classes: Tensor, start: Tensor, steps: int, images: int, *, settle: bool = False
    ) -> Tensor:
        fit, spec, report = self.fit, self.spec, self.report
        if name == "additive":
            return invert(fit, classes, start, self.limit, steps, images, spec, settle=settle, report=report)
        return invert_patches(fit, classes, start, steps, images, spec, report)

    def _reached(self, name: str, classes: Tensor, changes: Tensor) -> Reached:
        if name == "additive":
            return reached(self.held, classes, changes)
        return reached_by_patches(self.held, classes, changes, self.spec.seed)

    def together(self) -> Tensor:
        """The change (3, S, S) that pulls all features together."""
        spec = self.spec
        settings = {"steps": spec.collapse_steps, "images": spec.final_images, "seed": spec.seed}
        make = lambda: {"delta": collapse(self.model, self.fit.pixels, self.limit, **settings, report=self.report)}  # noqa: E731
        return self.stages.get("collapse", make)["delta"]

    def trigger(self, form: Form, place: int) -> Trigger:
        """One finalist's change as a trigger."""
        target, seed = self.classes[int(form.finalists[place])], self.spec.seed
        change = form.changes[place].cpu()
        if form.name == "additive":
            return Inverted.of(change, target, seed)
        size = self.side * REFERENCE_SIDE / self.model.image_size
        return Patch(
            trigger_spec("badnet", target=target, seed=seed, size=size), self.model.image_size, {"pattern": change}
        )


def find(
    model: Clip | Cleaned,
    pixels: Tensor,
    classes: Sequence[str],
    spec: CheckSpec,
    folder: Path | None = None,
    report: Report = silent,
) -> Findings:
    """All scores of a model; arguments as those of `Search`, with a folder where finished runs are kept."""
    search = Search(model, pixels, classes, spec, Stages(folder), report)
    forms = [search.form(name) for name in FORMS]
    rows = [row for form in forms for row in _rows(search, form)]
    rows.sort(key=lambda row: row["rise"], reverse=True)
    best = rows[0]
    form = next(form for form in forms if form.name == best["form"])
    trigger = search.trigger(form, [classes[i] for i in form.finalists.tolist()].index(best["class"]))
    curve = resistivity_curve(model, search.held.pixels, trigger)
    scores, words = _together(search)
    for each in forms:
        scores |= _scores(each)
    scores["resistivity"] = 1 - sum(curve) / len(curve)
    firsts = {name: next(row for row in rows if row["class"] == name) for name in {row["class"] for row in rows}}
    targets = sorted(firsts.values(), key=lambda row: row["rise"], reverse=True)
    return Findings(scores, targets, words, curve, trigger)


def _rows(search: Search, form: Form) -> list[dict[str, Any]]:
    """What was measured for each finalist."""
    keys, rises = ("margin", "share"), form.rises()[form.finalists].tolist()
    measured = zip(form.final.margins.tolist(), form.final.shares.tolist(), strict=True)
    names = [search.classes[index] for index in form.finalists.tolist()]
    return [
        {"class": name, "form": form.name, "rise": rise, **dict(zip(keys, values, strict=True))}
        for name, rise, values in zip(names, rises, measured, strict=True)
    ]


def _scores(form: Form) -> dict[str, float]:
    """Of one form; the higher, the more they speak for a backdoor."""
    final = form.final.margins.sort(descending=True).values
    return {
        f"{form.name}_margin": float(final[0]),
        f"{form.name}_share": float(form.final.shares.max()),
        f"{form.name}_rise": float(form.rises().max()),
        f"{form.name}_gap": float(final[0] - final[1]) if len(final) > 1 else 0.0,
        f"{form.name}_outlier": outlier_index(form.margins),
    }


@torch.no_grad()
def _together(search: Search) -> tuple[dict[str, float], list[str]]:
    """The score of the search without classes, and the words that features are pulled towards.

    There are none for a model with a classifier of its own, which cannot be compared with texts.
    """
    model, pixels = search.model, search.held.pixels
    before, after = model.encode_image(pixels), model.encode_image((pixels + search.together()).clamp(0, 1))
    score = {"collapse": float(concentration(after) - concentration(before))}
    clip = model.clip if isinstance(model, Cleaned) else model
    words = [] if isinstance(model, Cleaned) and model.head else whole_words(clip)
    if not words:
        return score, []
    return score, nearest_words(before, after, clip.class_features(words, search.spec.template), words, WORDS)

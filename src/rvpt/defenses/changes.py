"""The terms `keep` and `resist` of a run: their settings, the suspected targets, and the first changes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from rvpt.attacks.trigger import REFERENCE_SIDE
from rvpt.defenses.base import Run
from rvpt.defenses.few_shot import FewShot
from rvpt.defenses.suspects import named, scan, short_runs
from rvpt.defenses.terms import Keep, Resist, Term
from rvpt.inversion import FORMS
from rvpt.inversion.form import Form
from rvpt.inversion.spec import FormNames, InversionSpec
from rvpt.spec import Spec

SCANNED = 512  # images of the few-shot set, at most, that the first changes are optimized on
BUDGETS = ("budget", "wave_budget", "amplitude", "warp_budget", "patch_size")
"""The settings that unlearning and `InversionSpec` share."""


class ChangesSpec(Spec):
    """Settings of the terms `keep` and `resist`, and of the universal changes."""

    labels: Literal["given", "predicted"] = Field(
        "given", description="labels of the images, or the suspect's predictions, without cross-entropy"
    )
    keep: float = Field(1.0, ge=0, description="weight of staying with the suspect's predictions on mixtures")
    resist: float = Field(1.0, ge=0, description="weight of the loss on images with universal changes")
    targets: tuple[str, ...] = Field((), description="target classes; by default those that a short scan suspects")
    suspects: int = Field(1, ge=1, description="how many of the classes that a scan or a check suspects are targets")
    forms: FormNames = Field(("additive", "patch", "warp", "grating"), description="forms of the changes")
    per_image: int = Field(1, ge=1, description="changes that each image is shown with in a step")
    budget: float = Field(6.0, ge=0, le=255, description="root mean square of an additive change, in 255ths")
    wave_budget: float = Field(30.0, ge=0, le=255, description="root mean square of a smooth change, in 255ths")
    amplitude: float = Field(40.0, ge=0, le=255, description="amplitude of a grating, in 255ths")
    warp_budget: float = Field(1.6, ge=0, description="root mean square of displacements per axis, in half pixels")
    patch_size: float = Field(47.0, gt=0, le=REFERENCE_SIDE, description="side of a patch, in pixels at 224")

    def uses_labels(self) -> bool:
        return self.labels == "given"

    def inversion(self, seed: int) -> InversionSpec:
        """The budgets of the changes, and the settings of the scan."""
        return InversionSpec(**{name: getattr(self, name) for name in BUDGETS}, seed=seed)


def make_terms(few_shot: FewShot, spec: ChangesSpec, seed: int, run: Run) -> list[Term]:
    """The terms of a `ChangesSpec` whose weight is not zero.

    The first changes are kept with the run, so that one that is resumed does not scan again.

    Raises:
        RvptError: a target is not a class of the images.
    """
    clip, terms, targets = few_shot.clip, list[Term](), named(few_shot.names, spec.targets)
    if spec.keep:
        terms.append(Keep(spec.keep, few_shot.predictions == few_shot.labels, clip.device))
    if spec.resist:
        forms = [FORMS[name].of(spec.inversion(seed), clip.image_size) for name in spec.forms]
        stages = run.stages(clip.device)
        kept = stages.get("changes", lambda: _first(few_shot, forms, targets, spec, seed, run))
        starts = [kept[form.name] for form in forms]
        terms.append(Resist(spec.resist, few_shot.data, clip, forms, kept["targets"], starts, spec.per_image))
    return terms


def _first(
    few_shot: FewShot, forms: list[Form], given: Tensor, spec: ChangesSpec, seed: int, run: Run
) -> dict[str, Tensor]:
    """The targets (M,), and by form the changes (M, ...) towards them."""
    pool, settings, targets = few_shot.pool(SCANNED, seed), spec.inversion(seed), given.to(few_shot.clip.device)
    if len(given):
        changes = short_runs(forms, pool, targets, settings, run.report)
    else:
        targets, changes = scan(forms, pool, spec.suspects, settings, run.report)
    return {"targets": targets, **dict(zip((form.name for form in forms), changes, strict=True))}

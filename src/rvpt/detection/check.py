"""Is a CLIP backdoored, and towards what?"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.layouts.memory import IN_MEMORY
from rvpt.data.text import names_of
from rvpt.detection.calibration import Calibration, geometry_of, refuse_other_size
from rvpt.detection.score import find
from rvpt.detection.search import Search
from rvpt.detection.spec import CheckSpec
from rvpt.detection.verdict import Verdict, word_of
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.encode import refuse_name
from rvpt.progress import Report, doing, shows_bar, silent
from rvpt.tensors import sha256_tensors
from rvpt.training.loop import frozen
from rvpt.training.stages import Stages

FEWEST = 32  # images


@shows_bar("check")
def check(
    model: Clip | Cleaned,
    images: Dataset | Sequence[Any],
    /,
    classes: Sequence[str] | None = None,
    *,
    calibration: Calibration | None = None,
    reference: Clip | Cleaned | None = None,
    folder: str | Path | None = None,
    report: Report = silent,
    **settings: Any,
) -> Verdict:
    """Look for a backdoor in a model, with clean images of any kind and no knowledge of trigger or target.

    Args:
        model: the suspect. It is not changed.
        images: a data set, whose labels are not used, or images in memory.
        classes: the candidate targets; by default the data set's classes.
        calibration: by default the one that ships with rvpt, if it covers the check; else the p-value says whether a
            class stands out among the others.
        reference: a model of the same kind that is trusted, instead of a calibration. The p-value then says whether a
            class stands out among the others, and more than it does in this model.
        folder: where finished stages are kept, so that an interrupted check can be continued; other checks may use it.
        report: called as report(step, total, values) after each step.
        settings: of `CheckSpec`, such as seed=1 or budget=4.

    Raises:
        RvptError: too few images or classes, an unknown setting, a calibration that does not cover the check or is
            given beside a reference, or a reference that is the suspect or of another size.
    """
    refuse_name(model)
    spec, geometry = CheckSpec(**settings), geometry_of(model)
    if reference is not None:
        refuse_reference(reference, model)
        refuse_both("the calibration" if calibration else None, reference)
    data = images if isinstance(images, Dataset) else Dataset.from_images(images)
    names = list(data.classes if classes is None else names_of(data.name, classes))
    pixels = pixels_of(model, data, names, spec)
    if calibration is not None:
        calibration.refuse_misfit(spec, geometry, names)
    known = calibration or Calibration.read(geometry=geometry)
    misfit = known.misfit(spec, geometry, names)
    used = None if reference or misfit else known.limited(spec.forms)
    kept = Path(folder) / _digest(model, pixels, names, spec, used or reference) if folder else None
    with frozen(model), frozen(reference or model):
        trusted = _trusted(reference, data, names, spec, kept, report) if reference else None
        found = find(model, pixels, names, spec, used.known() if used else {}, kept, report, trusted)
    p_value = used.p_value(found.scores) if used else found.p_value
    facts = {
        "model": model.name, "model_sha256": model.hash(), "data": data.name, "images": len(pixels),
        "classes": names, "settings": spec.model_dump(), "most_predicted": found.most_predicted,
        **_basis(used, misfit, reference, data.name),
    }  # fmt: skip
    word = word_of(p_value, calibrated=used is not None)
    return Verdict(word, p_value, found.targets, found.words, found.scores, found.resistivity, facts, found.trigger)


def _basis(used: Calibration | None, misfit: str, reference: Clip | Cleaned | None, name: str) -> dict[str, Any]:
    """What a verdict rests on: a calibration, a reference, or the classes alone, and then why."""
    facts: dict[str, Any] = {"calibrated": used is not None, "calibration": used.recipe if used else None}
    if reference is not None:
        return {**facts, "reference": reference.name, "reference_sha256": reference.hash()}
    if used is None:
        return {**facts, "uncalibrated": misfit}
    return {**facts, **({"calibrated_on": used.images} if used.images and _other_images(used.images, name) else {})}


def _other_images(one: str, other: str) -> bool:
    """Whether two data sets have different names; images in memory have none, and scenes are scenes in any number."""
    names = {re.sub(r"^scenes:\d+", "scenes", name) for name in (one, other)}
    return IN_MEMORY not in names and len(names) > 1


def _digest(
    model: Clip | Cleaned,
    pixels: Tensor,
    names: Sequence[str],
    spec: CheckSpec,
    other: Calibration | Clip | Cleaned | None,
) -> str:
    """What tells the stages of a check from those of others: with another model, image, class or setting."""
    basis = other.sha256() if isinstance(other, Calibration) else other and other.hash()
    parts = model.hash(), sha256_tensors({"pixels": pixels}), names, spec.model_dump(), basis
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _trusted(
    reference: Clip | Cleaned, data: Dataset, names: Sequence[str], spec: CheckSpec, kept: Path | None, report: Report
) -> Search:
    """The search of the model to compare with, on the same images."""
    stages = Stages(kept and kept / "reference", reference.device)
    pixels = pixels_of(reference, data, names, spec)
    return Search(reference, pixels, names, spec, stages, doing(report, model="reference"))


def refuse_reference(reference: Clip | Cleaned, model: Clip | Cleaned) -> None:
    """Refuse a model to compare a suspect with that is the suspect, beside which no class would stand out, or of
    another size, in which other classes are easy to reach.

    Raises:
        RvptError: it is.
    """
    if reference.hash() == model.hash():
        raise RvptError(f"the reference {reference.name} is the suspect itself: give another model, which you trust")
    refuse_other_size((f"the reference {reference.name}", geometry_of(reference)), (model.name, geometry_of(model)))


def refuse_both(calibration: str | Path | None, reference: Clip | Cleaned) -> None:
    """Refuse a calibration, given by its name, that would not be used beside a reference.

    Raises:
        RvptError: there is one.
    """
    if calibration is not None:
        raise RvptError(f"{calibration} would not be used beside the reference {reference.name}: remove one of them")


def refuse_few(data: Dataset, names: Sequence[str]) -> None:
    """Refuse too few images or classes for a check.

    Raises:
        RvptError: there are too few.
    """
    if len(names) < 3:
        what = "1 class" if len(names) == 1 else f"{len(names)} classes"
        raise RvptError(f"{what}: a check compares at least three: give a file with more names as classes=FILE")
    if len(data) < FEWEST:
        raise RvptError(f"{data.name} has {len(data)} images: a check needs at least {FEWEST}")


def pixels_of(model: Clip | Cleaned, data: Dataset, names: Sequence[str], spec: CheckSpec) -> Tensor:
    """The images of a check, on the model's device.

    Raises:
        RvptError: too few images or classes.
    """
    refuse_few(data, names)
    some = data.sample(spec.num_images, spec.seed)
    return some.pixels(torch.arange(len(some)), model.image_size).to(model.device)

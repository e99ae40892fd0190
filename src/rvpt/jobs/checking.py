"""Checking as a whole job: a model's folder in, a folder with the verdict, the inverted trigger and an image out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rvpt.artifacts import staging, write_manifest
from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import canonical
from rvpt.data.load import load_data
from rvpt.data.skip import skipped_facts
from rvpt.detection.calibration import Calibration, geometry_of
from rvpt.detection.check import check, refuse_both, refuse_few
from rvpt.detection.spec import CheckSpec
from rvpt.detection.verdict import Verdict
from rvpt.errors import RvptError
from rvpt.files import write_text
from rvpt.jobs.findings import KIND, VERDICT
from rvpt.jobs.gallery import DRAWN, drawn, visibility
from rvpt.jobs.output_dirs import open_checkpoint
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.report.gallery import Look, draw_gallery
from rvpt.spec import OnError

TRIGGER, PLOT = "trigger", "check.png"


def check_and_save(
    model: Clip | Cleaned,
    source: str,
    target: Path,
    *,
    classes: Sequence[str] | None = None,
    split: str | None = None,
    shift: str | None = None,
    on_error: OnError = "stop",
    calibration: Path | None = None,
    reference: Clip | Cleaned | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
    **settings: Any,
) -> Verdict:
    """Check a model; write verdict.json, trigger/, which `rvpt evaluate --trigger` takes, and check.png.

    Args:
        model: the suspect.
        source: clean images of any kind.
        target: the folder to write.
        classes: the candidate targets; by default the data set's classes.
        split: the split of the images.
        shift: change of style of the images.
        on_error: "skip" leaves out images that cannot be read.
        calibration: a file or folder, by default the one that ships with rvpt.
        reference: a model of the same kind that is trusted, to compare with instead.
        resume: continue an interrupted check.
        overwrite: replace an artifact at `target`.
        report: called after each step.
        settings: of `CheckSpec`.

    Raises:
        RvptError: no names of classes, a calibration that does not fit or beside a reference, or an error of
            `rvpt.check`.
    """
    if reference is not None:
        refuse_both(calibration, reference)
    spec, data = CheckSpec(**settings), load_data(source, split, shift=shift, on_error=on_error)
    names = candidates(data, source, classes)
    known = Calibration.read(calibration, geometry := geometry_of(model))
    if calibration is not None:
        known.refuse_misfit(spec, geometry, names, str(calibration))
    key = {
        "model": model.hash(), "data": canonical(source), "split": split, "classes": names,
        "settings": spec.model_dump(), "calibration": known.sha256(),
        **({"shift": shift} if shift else {}), **skipped_facts(data),
        **({"reference": reference.hash()} if reference else {}),
    }  # fmt: skip
    checkpoint = open_checkpoint(target, key, (clip_of(model).source, source), resume=resume, overwrite=overwrite)
    with checkpoint.keeping() as folder:
        verdict = check(
            model, data, names, calibration=known if calibration else None, reference=reference, folder=folder,
            report=report, **settings,
        )  # fmt: skip
    with staging(target, overwrite=overwrite) as stage:
        write_text(stage / VERDICT, verdict.to_json())
        verdict.trigger.save(stage / TRIGGER)
        _draw(data, model.image_size, verdict.trigger, verdict.target, stage / PLOT)
        write_manifest(stage, KIND, verdict=verdict.word, model_sha256=verdict.facts["model_sha256"])
    checkpoint.drop()
    return verdict


def candidates(data: Dataset, source: str, classes: Sequence[str] | None) -> list[str]:
    """The candidate targets: given classes, or the data set's.

    Raises:
        RvptError: there are none, or too few of them or of the images.
    """
    names = list(data.classes if classes is None else classes)
    if not names:
        raise RvptError(f"{source} has no class names: give a file with the candidate targets as classes=FILE")
    refuse_few(data, names)
    return names


def _draw(data: Dataset, size: int, trigger: Trigger, target: str, path: Path) -> None:
    """Some images, the same with the inverted change, and the change, amplified."""
    some = _of_other_classes(data, target).sample(DRAWN, seed=0)
    pixels = some.pixels(torch.arange(len(some)), size)
    changed = trigger(pixels)
    draw_gallery(drawn(pixels), [Look(f"towards {target}", drawn(changed), **visibility(pixels, changed))], path)


def _of_other_classes(data: Dataset, target: str) -> Dataset:
    """The images that are not of the target; all where that is not known."""
    if data.labels is None or target not in data.classes:
        return data
    others = data.without([target])
    return others if len(others) else data

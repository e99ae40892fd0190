"""Inspecting as a whole job: a suspect, its cleaned model and images in, a folder with the flagged images out."""

from __future__ import annotations

import logging
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.artifacts import staging, write_manifest
from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import canonical
from rvpt.data.load import load_data
from rvpt.data.preprocess import to_image
from rvpt.data.skip import skipped_facts
from rvpt.data.splits import TEST, SeveralSplits, family
from rvpt.detection.monitor import Inspection, Monitor
from rvpt.errors import RvptError
from rvpt.jobs.drawing import draw_images
from rvpt.jobs.findings import suspected_targets
from rvpt.jobs.output_dirs import refuse_output
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.report.contact_sheet import Tile, draw_sheet
from rvpt.report.inspections import SCORES, SHEET, SHOWN, most_suspicious
from rvpt.report.names import guess
from rvpt.rows import write_rows
from rvpt.spec import OnError

KIND = "inspection"
FLAGGED = "flagged"
FEWEST, TIMES = 1000, 20  # clean images that are used, if there are as many: this many, and this many over the rate
logger = logging.getLogger("rvpt")


def inspect_and_save(
    suspect: Clip,
    cleaned: Cleaned,
    source: str,
    target: Path | None = None,
    *,
    split: str | None = None,
    clean: str | None = None,
    clean_split: str | None = None,
    check: Path | None = None,
    classes: Sequence[str] | None = None,
    shift: str | None = None,
    on_error: OnError = "stop",
    score: str = "disagreement",
    false_alarms: float = 0.05,
    overwrite: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Flag the images on which a suspect looks triggered; returns a summary.

    The folder gets scores.jsonl with a line for every image, the flagged images, and flagged.png, which shows the first
    of them.

    Args:
        suspect: the model in use.
        cleaned: the same model, cleaned.
        source: the images to inspect.
        target: the folder to write; None writes nothing.
        split: the split of the images; by default the only one, or test if there are several.
        clean: images without triggers, for the threshold; by default those that `cleaned` was not trained on of the
            data set that it was cleaned with.
        clean_split: their split.
        check: the folder of a check of the suspect, whose suspected targets are used.
        classes: to choose from; by default those that the model was cleaned with, or those of the data set.
        shift: change of style of these images and of `clean`.
        on_error: "skip" leaves out images that cannot be read.
        score: of `rvpt.detection.SCORES`.
        false_alarms: the share of clean images that may be flagged.
        overwrite: replace an artifact at `target`.
        report: called after each batch.

    Raises:
        RvptError: too few clean images, or an error of `Monitor`.
    """
    if target:
        refuse_output(target, [suspect.source, source, *([clean] if clean else [])], overwrite=overwrite)
    data = _images(source, split, shift, on_error)
    names = list(classes or cleaned.facts.get("classes") or data.classes)
    if not names:
        raise RvptError(f"{source} has no class names: give a file with the classes as classes=FILE")
    targets = suspected_targets(check, suspect) if check else []
    monitor = Monitor(suspect, cleaned, names, targets=targets, score=score, false_alarms=false_alarms)
    known = clean_images(cleaned, clean, clean_split, shift, on_error)
    monitor.fit(known.sample(max(FEWEST, math.ceil(TIMES / false_alarms))), report)
    seen = monitor.inspect(data, report)
    warn_of_disagreement(seen)
    lines = _lines(seen, data, names)
    summary = {
        "images": len(data), "flagged": int(seen.flagged.sum()), "expected": round(false_alarms * len(data), 1),
        "false_alarms": false_alarms, "clean_images": len(monitor.known), "score": score, "targets": targets,
        "predictions": dict(Counter(line["suspect"] for line in lines if line["flagged"]).most_common()),
        **skipped_facts(data),
    }  # fmt: skip
    if target:
        with staging(target, overwrite=overwrite) as stage:
            write_rows(stage / SCORES, lines)
            _write_flagged(stage, data, seen.flagged.nonzero()[:, 0], suspect.image_size)
            _draw(stage / SHEET, data, lines, seen, suspect.image_size)
            write_manifest(stage, KIND, **summary, model_sha256=suspect.hash(), cleaned_sha256=cleaned.hash())
    return {**summary, "found": most_suspicious(lines)}


def warn_of_disagreement(seen: Inspection) -> None:
    """Warn if the models disagree on most images, as triggers are seldom on so many."""
    agree = (seen.suspect.labels == seen.cleaned.labels).double().mean().item()
    if agree < 0.5:
        logger.warning(
            "the models agree on only %.0f%% of the images: if these are not mostly triggered, the cleaned model is of "
            "little use here; measure it with rvpt evaluate",
            100 * agree,
        )


def _images(source: str, split: str | None, shift: str | None, on_error: OnError) -> Dataset:
    """The images to inspect; without a split, those of the only one, or of test if there are several."""
    try:
        return load_data(source, split, shift=shift, on_error=on_error)
    except SeveralSplits:
        return load_data(source, TEST, shift=shift, on_error=on_error)


def clean_images(
    cleaned: Cleaned,
    source: str | None = None,
    split: str | None = None,
    shift: str | None = None,
    on_error: OnError = "stop",
) -> Dataset:
    """Clean images that a model was not trained on: it agrees with the suspect on those more than on others.

    Raises:
        RvptError: no source is given or known, or no image is left.
    """
    drawn = cleaned.facts.get("data", {})
    if source is None:
        if split is not None:
            raise RvptError(f"clean_split={split} is of images that clean=DATA names: add that")
        source, split, shift = drawn.get("source"), drawn.get("split"), shift or drawn.get("shift")
    if source is None:
        raise RvptError(f"{cleaned.name} does not say what it was cleaned with: give clean images as clean=DATA")
    then: OnError = "skip" if drawn.get("skipped") else "stop"
    try:
        data = load_data(source, split, on_error="skip" if then == "skip" else on_error, shift=shift)
    except SeveralSplits as error:
        raise RvptError(str(error).replace("split=", "clean_split=")) from None
    if drawn and _same_images(source, split, drawn):
        used = draw_images(drawn, then).rows
        data = data.select(torch.isin(data.rows, used, invert=True).nonzero()[:, 0])
    if not len(data):
        raise RvptError(f"all images of {source} were used to clean {cleaned.name}: give other ones as clean=DATA")
    return data


def _same_images(source: str, split: str | None, drawn: Mapping[str, Any]) -> bool:
    """Whether images are of the split that a model was cleaned with; a split that is not named is the only one."""
    same = None in (split, drawn["split"]) or family(str(split)) == family(str(drawn["split"]))
    return same and canonical(source) == canonical(drawn["source"])


def _lines(seen: Inspection, data: Dataset, names: Sequence[str]) -> list[dict[str, Any]]:
    """What was found about every image, in the order of the data set."""
    columns = (seen.suspect.labels, seen.suspect.probabilities, seen.cleaned.labels, seen.cleaned.probabilities)
    whole = zip(
        data.rows.tolist(), *(column.tolist() for column in (*columns, seen.scores, seen.p_values, seen.flagged)),
        strict=True,
    )  # fmt: skip
    return [
        {
            "image": row, "file": data.place(index), "suspect": names[before], "suspect_probability": sure,
            "cleaned": names[after], "cleaned_probability": surely, "score": score, "p_value": p, "flagged": flagged,
        }
        for index, (row, before, sure, after, surely, score, p, flagged) in enumerate(whole)
    ]  # fmt: skip


def _write_flagged(stage: Path, data: Dataset, flagged: Tensor, size: int) -> None:
    """The flagged images: copies of their files, or PNGs at the model's size where there are no files."""
    folder = stage / FLAGGED
    folder.mkdir()
    for index in flagged.tolist():
        row, place = int(data.rows[index]), data.place(index)
        if place and Path(place).is_file():
            shutil.copyfile(place, folder / f"{row:06d}-{Path(place).name}")
        else:
            to_image(data.pixels(torch.tensor([index]), size)[0]).save(folder / f"{row:06d}.png")


def _draw(path: Path, data: Dataset, lines: list[dict[str, Any]], seen: Inspection, size: int) -> None:
    """The flagged images with the highest scores, and what both models see in them."""
    order = seen.scores.argsort(descending=True)
    first = order[seen.flagged[order]][:SHOWN]
    images = data.pixels(first, size).permute(0, 2, 3, 1).numpy() if len(first) else ()
    tiles = [
        Tile(image, [f"{model}: {guess(lines[index], model)}" for model in ("suspect", "cleaned")])
        for index, image in zip(first.tolist(), images, strict=True)
    ]
    draw_sheet(tiles, path, f"{int(seen.flagged.sum())} of {len(data)} images are flagged")

"""rvpt check: is this model backdoored, and towards what?"""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import SHIFT
from rvpt.cli.describe import describe
from rvpt.cli.errors import VERDICTS
from rvpt.cli.options import (
    BaseModel,
    CalibrationFolder,
    CheckSets,
    ClassesFile,
    Data,
    Device,
    ImagesSplit,
    Json,
    ModelArgument,
    OnErrors,
    OutputDir,
    Overwrite,
    Reference,
    Resume,
    Seed,
    ShiftName,
)
from rvpt.cli.panels import CLEANING
from rvpt.cli.settings import gather


def check_help() -> MoreHelp:
    from rvpt.detection.spec import CheckSpec

    return MoreHelp({"shift": SHIFT.text()}, describe(CheckSpec))


@command(CLEANING, check_help)
def check(
    model: ModelArgument,
    data: Data,
    output_dir: OutputDir,
    classes: ClassesFile = None,
    split: ImagesSplit = "train",
    shift: ShiftName = None,
    on_error: OnErrors = "stop",
    base_model: BaseModel = None,
    calibration: CalibrationFolder = None,
    reference: Reference = None,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    settings: CheckSets = None,
    as_json: Json = False,
) -> None:
    """Look for a backdoor: search for small image changes that make the model predict a class.

    Needs clean images of any kind, without labels. The exit code is 0 for a clean model, 3 for a suspicious one and 4
    for a backdoored one. The folder gets verdict.json, the inverted trigger, and an image of it.
    """
    from rvpt.data.classnames import read_names
    from rvpt.jobs.checking import check_and_save
    from rvpt.jobs.output_dirs import refuse_source
    from rvpt.models.load import load

    chosen = gather(settings, seed=seed)
    names = read_names(classes) if classes else None
    refuse_source(output_dir, [str(place) for place in (model, reference, calibration) if place])
    suspect = load(model, base=base_model, device=device)
    trusted = load(reference, device=device) if reference is not None else None
    with progress.bar("check") as report:
        found = check_and_save(
            suspect, data, output_dir, classes=names, split=split, shift=shift, on_error=on_error,
            calibration=calibration, reference=trusted, resume=resume, overwrite=overwrite, report=report, **chosen,
        )  # fmt: skip
    lines = [found.to_json().strip()] if as_json else [*found.lines(), *_next(found.word, model, data, output_dir)]
    print("\n".join(lines))
    raise typer.Exit(VERDICTS[found.word])


def _next(word: str, model: str, data: str, folder: Path) -> list[str]:
    """Where the result is, and how to go on from it."""
    words = ["rvpt", "clean", model, "--data", data, "-o", "cleaned", "--defense", "unlearn", "--check", str(folder)]
    cleaning = [] if word == "clean" else [f"to clean it: {shlex.join(words)}"]
    return [f"written: {folder} (verdict.json, check.png, and the change that was found as trigger/)", *cleaning]

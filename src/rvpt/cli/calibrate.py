"""rvpt calibrate: what is natural in clean models, for checks of models like them."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import command
from rvpt.cli.check import check_help
from rvpt.cli.options import (
    CheckSets,
    ClassesFile,
    Data,
    Device,
    ImagesSplit,
    Json,
    OnErrors,
    OutputDir,
    Overwrite,
    Resume,
    Seed,
    ShiftName,
)
from rvpt.cli.panels import CLEANING
from rvpt.cli.settings import gather
from rvpt.cli.tables import show_facts


@command(CLEANING, check_help)
def calibrate(
    models: Annotated[list[str], typer.Argument(metavar="MODELS", help="Clean models of one kind, at least four.")],
    data: Data,
    output_dir: OutputDir,
    classes: ClassesFile = None,
    split: ImagesSplit = "train",
    shift: ShiftName = None,
    on_error: OnErrors = "stop",
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    settings: CheckSets = None,
    as_json: Json = False,
) -> None:
    """Measure clean models, so that 'rvpt check --calibration' can tell what is unusual in models like them.

    The suspect must be checked with the same settings, and with the same classes. Good clean models are the base model
    of the suspect, fine-tuned by you with several seeds, data sets and learning rates.
    """
    from rvpt.data.classnames import read_names
    from rvpt.jobs.calibrating import calibrate_and_save

    chosen, names = gather(settings, seed=seed), read_names(classes) if classes else None
    with progress.bar("calibrate") as report:
        made = calibrate_and_save(
            models, data, output_dir, classes=names, split=split, shift=shift, on_error=on_error, device=device,
            resume=resume, overwrite=overwrite, report=report, **chosen,
        )  # fmt: skip
    show_facts({"calibration": str(output_dir), "models": len(made.models), **made.geometry}, as_json=as_json)
    if not as_json:
        words = ["rvpt", "check", "SUSPECT", "--data", data, "--calibration", str(output_dir), "-o", "found"]
        same = {"--classes": classes, "--shift": shift, "--split": split, "--on-error": on_error}
        usual = {"--split": "train", "--on-error": "stop"}
        words += [word for name, value in same.items() if value != usual.get(name) for word in (name, str(value))]
        print(f"to use it: {shlex.join([*words, *(word for each in settings or () for word in ('--set', each))])}")

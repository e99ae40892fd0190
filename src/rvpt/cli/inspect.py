"""rvpt inspect: which of these images look as if they had a trigger?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import SCORE, SHIFT
from rvpt.cli.options import (
    DATA,
    ClassesFile,
    Data,
    Device,
    FoundByCheck,
    Json,
    ModelArgument,
    OnErrors,
    Overwrite,
    ShiftName,
)
from rvpt.cli.panels import CLEANING
from rvpt.cli.tables import show_inspection, show_json


@command(CLEANING, lambda: MoreHelp({"score": SCORE.text(), "shift": SHIFT.text()}))
def inspect(
    suspect: ModelArgument,
    cleaned: Annotated[str, typer.Argument(metavar="CLEANED", help="Folder of the same model, cleaned.")],
    data: Data,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "-o",
            metavar="FOLDER",
            help="Folder for the flagged images and all scores.",
            show_default="nothing is written",
        ),
    ] = None,
    check: FoundByCheck = None,
    false_alarms: Annotated[
        float, typer.Option(min=0, max=1, help="Share of clean images that may be flagged.")
    ] = 0.05,
    score: Annotated[str, SCORE.option(help="How to score images.")] = "disagreement",
    device: Device = None,
    overwrite: Overwrite = False,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the images.", show_default="test, or the only one if there is one", rich_help_panel=DATA
        ),
    ] = None,
    classes: ClassesFile = None,
    clean: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Images without triggers, to set the threshold.",
            show_default="what CLEANED was cleaned with, without the images that it was trained on",
            rich_help_panel=DATA,
        ),
    ] = None,
    clean_split: Annotated[
        str | None, typer.Option(help="Their split.", show_default="the only one", rich_help_panel=DATA)
    ] = None,
    shift: ShiftName = None,
    on_error: OnErrors = "stop",
    as_json: Json = False,
) -> None:
    """Flag images that look as if they had a trigger: the suspect and the cleaned model disagree on them.

    Pass the folder of a check with --check to look only for disagreement on the targets that it suspects.
    """
    from rvpt.cli.models import load_suspect
    from rvpt.data.classnames import read_names
    from rvpt.jobs.inspecting import inspect_and_save
    from rvpt.models.cleaned import Cleaned

    model = load_suspect(suspect, device)
    with progress.bar("inspect") as report:
        found: dict[str, Any] = inspect_and_save(
            model, Cleaned.from_pretrained(cleaned, model), data, output_dir, split=split, clean=clean,
            clean_split=clean_split, check=check, classes=read_names(classes) if classes else None, shift=shift,
            on_error=on_error, score=score, false_alarms=false_alarms, overwrite=overwrite, report=report,
        )  # fmt: skip
    if as_json:
        show_json(found)
        return
    show_inspection(found)
    if output_dir:
        print(f"images: {output_dir / 'flagged'}; scores: {output_dir / 'scores.jsonl'}")

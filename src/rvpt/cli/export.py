"""rvpt export: a model in another format."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import EXPORT
from rvpt.cli.describe import describe
from rvpt.cli.options import BaseModel, Device, Json, ModelArgument, OutputDir, Overwrite, Rows, set_option
from rvpt.cli.panels import MODELS
from rvpt.cli.settings import gather
from rvpt.cli.tables import show_facts, show_rows
from rvpt.rows import append_rows, refuse_foreign

TRAINED = "For --to distilled"


def _help() -> MoreHelp:
    from rvpt.exports.distilled import SMALL, DistillSpec
    from rvpt.jobs.drawing import SHOTS

    return MoreHelp(
        {"to": EXPORT.text(), "shots": f"default: {SHOTS}; without labels all"},
        describe(DistillSpec, {"paper": {}, "small": SMALL}),
    )


@command(MODELS, _help)
def export(
    model: ModelArgument,
    to: Annotated[str, EXPORT.option("--to", help="The format.")],
    output_dir: OutputDir,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSONL file with rows of this model, for the manifest and the model card."),
    ] = None,
    base_model: BaseModel = None,
    device: Device = None,
    overwrite: Overwrite = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Data set with clean images, to train and measure on.", rich_help_panel=TRAINED
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to train on.", show_default="train", rich_help_panel=TRAINED)
    ] = None,
    test_split: Annotated[
        str | None, typer.Option(help="Split to measure on.", show_default="test", rich_help_panel=TRAINED)
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(min=1, help="Images per class; of images without labels, in all.", rich_help_panel=TRAINED),
    ] = None,
    settings: Annotated[
        list[str] | None,
        set_option("Any other setting (listed below), as in --set epochs=20; repeatable.", TRAINED),
    ] = None,
    rows: Rows = None,
    as_json: Json = False,
) -> None:
    """Export a model: write it in a format that other programs read, after checking that it gives the same outputs.

    Formats that hold no prompts are refused for models with prompts. 'distilled' trains a plain CLIP that does without
    them, and measures it.
    """
    from rvpt.exports.base import TOLERANCE
    from rvpt.jobs.exporting import export_and_save

    if rows:
        refuse_foreign(rows)
    with progress.bar("export") as report:
        facts, measured = export_and_save(
            model, to, output_dir, base=base_model, results=results, data=data, split=split, test_split=test_split,
            shots=shots, device=device, overwrite=overwrite, report=report, settings=gather(settings),
        )  # fmt: skip
    if rows:
        append_rows(rows, measured)
    if measured and not as_json:
        show_rows(measured, as_json=False)
    difference = f"{facts['largest_difference']:.1e} (limit {TOLERANCE:.0e})"
    told = facts if as_json else {"largest difference of the outputs": difference}
    show_facts({"exported": str(output_dir), "format": facts["format"], **told}, as_json=as_json)
    if not as_json:
        print(f"to check it later: {shlex.join(['rvpt', 'verify', str(output_dir)])}")

"""rvpt figures: what happens inside models, as images and arrays."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import FIGURE, SHIFT
from rvpt.cli.options import (
    DATA,
    BaseModel,
    Data,
    Device,
    ImagesSplit,
    Json,
    OnErrors,
    OutputDir,
    Overwrite,
    Seed,
    ShiftName,
)
from rvpt.cli.panels import CLEANING
from rvpt.cli.tables import show_json


@command(CLEANING, lambda: MoreHelp({"figure": FIGURE.text(), "shift": SHIFT.text()}))
def figures(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Folders of models or of cleaned models, hub ids, or those that ship with rvpt, in the order in which "
            "to show them.",
        ),
    ],
    data: Data,
    output_dir: OutputDir,
    figure: Annotated[
        list[str] | None,
        FIGURE.option(help="Make only this figure; repeatable."),
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER", help="Folder of a trigger; repeatable.", show_default="those saved with the models"
        ),
    ] = None,
    split: ImagesSplit = "test",
    limit: Annotated[
        int, typer.Option(min=10, help="Use at most this many images, drawn at random.", rich_help_panel=DATA)
    ] = 500,
    shift: ShiftName = None,
    on_error: OnErrors = "stop",
    base_model: BaseModel = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show what happens inside models: resistivity, attention, t-SNE, what features encode, where triggered images go.

    Each figure is written as PNG, SVG and arrays (safetensors). 'rvpt report FOLDER --output report.html' shows them in
    one page. Without --figure, all are made that the models and images have what they need for.
    """
    from rvpt.jobs.figures import figures_and_save

    again = ["rvpt", "figures", *models, "--data", data, "--split", split, "--limit", str(limit), "--seed", str(seed)]
    again += [word for each in trigger or [] for word in ("--trigger", each)]
    again += ["--shift", shift] if shift else []
    again += ["--on-error", on_error] if on_error != "stop" else []
    again += [*(["--base-model", base_model] if base_model else []), "-o", str(output_dir)]
    with progress.bar("figures") as report:
        made = figures_and_save(
            models, data, output_dir, figure or [], triggers=trigger or [], split=split, limit=limit, shift=shift,
            seed=seed, on_error=on_error, base=base_model, device=device, overwrite=overwrite,
            command=shlex.join(again), report=report,
        )  # fmt: skip
    if as_json:
        show_json({name: str(output_dir / f"{name}.png") for name in made})
        return
    print("\n".join(str(output_dir / f"{name}.png") for name in made))

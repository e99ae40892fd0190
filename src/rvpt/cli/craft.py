"""rvpt craft: make a trigger for one model, to use in several attacks."""

from __future__ import annotations

from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import command
from rvpt.cli.choices import TRIGGER
from rvpt.cli.options import (
    DATA,
    CaptionColumn,
    Device,
    Json,
    ManyData,
    ModelArgument,
    OnErrors,
    OutputDir,
    Overwrite,
    PresetName,
    Seed,
    Target,
)
from rvpt.cli.panels import ATTACKING
from rvpt.cli.tables import show_facts
from rvpt.presets import choose_preset


@command(ATTACKING)
def craft(
    trigger: Annotated[
        str,
        typer.Argument(
            metavar="TRIGGER",
            help="NAME, or NAME:OPTION=VALUE,... as in trojvqa:epochs=20; 'rvpt triggers' lists both.",
            autocompletion=TRIGGER.complete,
        ),
    ],
    model: ModelArgument,
    data: ManyData,
    target: Target,
    output_dir: OutputDir,
    preset: PresetName = "auto",
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    num_pairs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use this many image-caption pairs, drawn at random.",
            show_default="all",
            rich_help_panel=DATA,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data.", rich_help_panel=DATA)] = "train",
    caption_column: CaptionColumn = None,
    on_error: OnErrors = "stop",
    as_json: Json = False,
) -> None:
    """Make a trigger for a model and save it; 'rvpt attack --trigger FOLDER' then uses it.

    Some triggers are optimized for one model. 'rvpt attack' does that too; use this command to reuse a trigger.
    """
    from rvpt.cli.models import load_suspect
    from rvpt.cli.trigger_option import named_trigger
    from rvpt.jobs.attacking import craft_and_save

    clip = load_suspect(model, device)
    chosen = choose_preset(preset, clip.parameter_count())
    spec = named_trigger(trigger, chosen, target, seed)
    with progress.bar(f"craft {spec.name}") as report:
        facts = craft_and_save(
            clip, spec, data, output_dir, split=split, caption_column=caption_column, on_error=on_error,
            num_pairs=num_pairs, overwrite=overwrite, report=report,
        )  # fmt: skip
    show_facts({"folder": str(output_dir), "preset": chosen, **facts}, as_json=as_json)

"""rvpt craft: make a trigger for one model, once, to use anywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from rvpt.cli.app import Force, Json, Out, Seed, command
from rvpt.cli.attack import ModelArgument, named_trigger
from rvpt.cli.tables import show_facts


@command
def craft(
    trigger: Annotated[str, typer.Argument(help="NAME, or NAME:OPTION=VALUE,... as in trojvqa:epochs=20.")],
    model: ModelArgument,
    data: Annotated[list[str], typer.Option(help="Captioned data to make it on; several are mixed.")],
    target: Annotated[str, typer.Option(help="Class that triggered images shall be taken for.")],
    out: Out,
    preset: Annotated[str, typer.Option(help="The trigger's look: paper, or small for small CLIPs.")] = "small",
    split: Annotated[str, typer.Option(help="Split of --data.")] = "train",
    caption_column: Annotated[str | None, typer.Option(help="Column with the captions.", show_default="found")] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Pairs to make it on, drawn by --seed.", show_default="all")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a trigger for a model, to be given to rvpt attack as --trigger FOLDER."""
    from rvpt import presets
    from rvpt.jobs import craft_and_save
    from rvpt.progress import bar

    spec = named_trigger(trigger, target, seed, presets.preset(presets.ATTACK, preset)["triggers"])
    with bar(f"craft {spec.name}") as report:
        facts = craft_and_save(
            model, spec, data, out, split=split, caption_column=caption_column, pairs=pairs, force=force, report=report
        )
    show_facts({**facts, "folder": str(out)}, as_json=as_json)

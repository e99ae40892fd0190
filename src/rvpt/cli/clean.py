"""rvpt clean: repulsive visual prompt tuning of a suspect CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import Data, Force, Json, Out, Precision, Resume, Seed, command, given, named_options
from rvpt.cli.attack import ModelArgument
from rvpt.cli.tables import show_facts
from rvpt.errors import RvptError

PRESET = "the preset's"
AUGMENT = "none; of par noise-erase"
NAMES = "rvpt, vpt, probe and finetune (on labels); contrastive, cleanclip and par (on captions)."


@command
def clean(
    model: ModelArgument,
    data: Data,
    out: Out,
    defense: Annotated[
        str,
        typer.Option(help="NAME, or NAME:OPTION=VALUE,... as in cleanclip:weight=2. There are " + NAMES),
    ] = "rvpt",
    preset: Annotated[
        str, typer.Option(help="Settings: paper, or small for CLIPs of a few million parameters.")
    ] = "paper",
    split: Annotated[str, typer.Option(help="Split of --data to draw from.")] = "train",
    shots: Annotated[int | None, typer.Option(min=1, help="Clean images a class.", show_default="16")] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            min=2, help="Clean images with captions, for the defenses on captions.", show_default="as published"
        ),
    ] = None,
    caption_column: Annotated[str | None, typer.Option(help="Column with the captions.", show_default="found")] = None,
    without_class: Annotated[list[str] | None, typer.Option(help="Leave this class out (emerging class).")] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Weight of the feature-repelling loss; 0 is VPT.", show_default=PRESET),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Floor of the repelling loss, -1 to 1.", show_default=PRESET)
    ] = None,
    first_block: Annotated[int | None, typer.Option(min=0, help="First prompted block D.", show_default=PRESET)] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Prompted blocks, instead of --first-block.")] = None,
    depth_from: Annotated[
        str | None,
        typer.Option(help="Count --depth from the output or the input side.", show_default="output"),
    ] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Prompt length b.", show_default=PRESET)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, show_default=PRESET)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, show_default=PRESET)] = None,
    lr: Annotated[float | None, typer.Option(show_default=PRESET)] = None,
    momentum: Annotated[float | None, typer.Option(show_default=PRESET)] = None,
    weight_decay: Annotated[float | None, typer.Option(show_default=PRESET)] = None,
    init_std: Annotated[float | None, typer.Option(help="Spread of the first prompts.", show_default=PRESET)] = None,
    template: Annotated[str | None, typer.Option(help="Caption of a class.", show_default="a photo of a {}.")] = None,
    augment: Annotated[
        str | None, typer.Option(help="none (cached, fast), crop-flip or noise-erase.", show_default=AUGMENT)
    ] = None,
    precision: Precision = "no",
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Clean a suspect CLIP with a few clean images and write what came out: for rvpt, prompts as an adapter."""
    from rvpt import presets
    from rvpt.defenses import defense as defense_called
    from rvpt.jobs import clean_and_save
    from rvpt.progress import bar

    options = given(
        alpha=alpha, margin=margin, first_block=first_block, depth=depth, depth_from=depth_from, length=length,
        epochs=epochs, batch_size=batch_size, lr=lr, momentum=momentum, weight_decay=weight_decay,
        init_std=init_std, template=template, augment=augment,
    )  # fmt: skip
    name, more = named_options(defense)
    if twice := sorted(options.keys() & more.keys()):
        raise RvptError(f"{twice[0]} is given behind the defense's name and as an option: give it once")
    if own := sorted(more.keys() & {"seed", "precision"}):
        raise RvptError(f"{own[0]} is none of the defense's own settings: give it as --{own[0]}")
    entry, chosen = defense_called(name), presets.preset(presets.CLEAN, preset).get(name, {})
    for option, flag, value in (
        ("without", "--without-class", without_class), ("shots", "--shots", shots),
        ("pairs", "--pairs", pairs), ("caption_column", "--caption-column", caption_column),
    ):  # fmt: skip
        if value and option not in entry.draws:
            learns = "captions, not from labels" if entry.captions else "labels, not from captions"
            raise RvptError(f"{name} learns from {learns}: leave {flag} out")
    spec = entry.Spec.build(**{**chosen, **options, **more, "precision": precision, "seed": seed})
    with bar("clean") as report:
        facts = clean_and_save(
            model, data, Path(out), spec, name=name, split=split, without=without_class or [],
            caption_column=caption_column, resume=resume, force=force, report=report,
            **given(shots=shots, pairs=pairs),
        )  # fmt: skip
    show_facts({"cleaned": str(out), **facts}, as_json=as_json)

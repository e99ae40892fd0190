"""rvpt pretrain: a small CLIP from scratch, or from where another stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rvpt.cli.app import Force, Json, Out, Precision, Resume, Seed, command, given
from rvpt.cli.tables import show_facts


@command
def pretrain(
    data: Annotated[list[str], typer.Option(help="Data set to train on; several are mixed.")],
    out: Out,
    preset: Annotated[str, typer.Option(help="Geometry and schedule: scenes or photos.")] = "scenes",
    start: Annotated[
        str | None,
        typer.Option(help="Go on from the weights of this CLIP.", show_default="random weights"),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="Data set to measure zero-shot accuracy on.", show_default="the first of --data"),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to train on; scenes has one called pretrain.")] = "train",
    caption_column: Annotated[str | None, typer.Option(help="Column with the captions.", show_default="found")] = None,
    geometry: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the geometry, such as width=192 or blocks=12.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, show_default="the preset's")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, show_default="the preset's")] = None,
    lr: Annotated[float | None, typer.Option(show_default="the preset's")] = None,
    patch_drop: Annotated[
        float | None,
        typer.Option(help="Share of patches left out of a step (FLIP).", show_default="the preset's"),
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="none, crop-flip or noise-erase.", show_default="the preset's")
    ] = None,
    precision: Precision = "no",
    half: Annotated[bool, typer.Option("--half", help="Round the weights to float16 and store them so.")] = False,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a CLIP, from scratch or on from --start, on images with captions, or with class labels and templates."""
    from rvpt import presets
    from rvpt.config import PretrainSpec, VisionSpec
    from rvpt.errors import RvptError
    from rvpt.jobs import pretrain_and_save
    from rvpt.loaders import load_clip
    from rvpt.progress import bar

    chosen = presets.preset(presets.PRETRAIN, preset)
    if start and geometry:
        raise RvptError(f"--geometry {geometry[0]}: with --start the geometry is that of {start}")
    begin = load_clip(start) if start else VisionSpec.build(**{**chosen["vision"], **_pairs(geometry or [])})
    options = given(epochs=epochs, batch_size=batch_size, lr=lr, patch_drop=patch_drop, augment=augment)
    spec = PretrainSpec.build(**{**chosen["train"], **options, "precision": precision, "seed": seed})
    with bar("pretrain") as report:
        facts = pretrain_and_save(
            data, begin, spec, Path(out), split=split, tests=test or data[:1],
            caption_column=caption_column, half=half, resume=resume, force=force, report=report,
        )  # fmt: skip
    show_facts({"model": str(out), **facts}, as_json=as_json)


def _pairs(texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE options as a dict; pydantic checks names and values."""
    from rvpt.errors import RvptError

    for text in texts:
        if "=" not in text:
            raise RvptError(f"--geometry {text}: write NAME=VALUE, as in width=192")
    return dict(text.split("=", 1) for text in texts)

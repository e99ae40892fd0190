"""rvpt pretrain: train a small CLIP."""

from __future__ import annotations

from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import PRETRAINING
from rvpt.cli.describe import default_texts, describe
from rvpt.cli.options import (
    DATA,
    OUTPUT,
    CaptionColumn,
    Device,
    Epochs,
    Json,
    LearningRate,
    ManyData,
    OnErrors,
    OutputDir,
    Overwrite,
    Resume,
    Sets,
    SizeOfBatch,
    SpecPrecision,
    SpecSeed,
)
from rvpt.cli.panels import EXPERIMENTS
from rvpt.cli.settings import divide, gather
from rvpt.cli.tables import show_facts
from rvpt.errors import RvptError


def _help() -> MoreHelp:
    from rvpt.training.pretrain import PRESETS, PretrainSpec, VisionSpec

    schedules = {name: chosen["train"] for name, chosen in PRESETS.items()}
    texts = {
        "preset": PRETRAINING.text(),
        **default_texts(PretrainSpec, schedules, ("lr", "epochs", "batch_size", "precision", "seed")),
    }
    geometries = {name: chosen["vision"] for name, chosen in PRESETS.items()}
    return MoreHelp(texts, [*describe(PretrainSpec, schedules), *describe(VisionSpec, geometries)])


@command(EXPERIMENTS, _help)
def pretrain(
    data: ManyData,
    output_dir: OutputDir,
    preset: Annotated[str, PRETRAINING.option(help="Geometry and schedule.")] = "scenes",
    start: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Continue from the weights of this CLIP.",
            show_default="random weights",
        ),
    ] = None,
    seed: SpecSeed = None,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: SizeOfBatch = None,
    precision: SpecPrecision = None,
    settings: Sets = None,
    split: Annotated[
        str, typer.Option(help="Split to train on; scenes has one called pretrain.", rich_help_panel=DATA)
    ] = "train",
    caption_column: CaptionColumn = None,
    on_error: OnErrors = "stop",
    test_data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="Data set to measure zero-shot accuracy on; repeatable.",
            show_default="the first --data",
            rich_help_panel=DATA,
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Save the weights as fp16.", rich_help_panel=OUTPUT)] = False,
    as_json: Json = False,
) -> None:
    """Train a small CLIP on images with captions, or on labeled images with captions made from class names."""
    from rvpt.cli.models import load_suspect
    from rvpt.jobs.pretraining import pretrain_and_save
    from rvpt.training.pretrain import PRESETS, PretrainSpec, VisionSpec

    changes = gather(settings, lr=lr, epochs=epochs, batch_size=batch_size, precision=precision, seed=seed)
    schedule, geometry = divide(changes, PretrainSpec, VisionSpec)
    chosen = PRESETS.find(preset)
    spec = PretrainSpec(**{**chosen["train"], **schedule})
    if start and geometry:
        name, value = next(iter(geometry.items()))
        raise RvptError(f"the geometry is that of start={start}: remove {name}={value}")
    begin = load_suspect(start, device) if start else VisionSpec(**{**chosen["vision"], **geometry})
    with progress.bar("pretrain") as report:
        facts = pretrain_and_save(
            data, begin, spec, output_dir, split=split, tests=test_data or data[:1], caption_column=caption_column,
            on_error=on_error, half=half, device=device, resume=resume, overwrite=overwrite, report=report,
        )  # fmt: skip
    show_facts({"model": str(output_dir), **facts}, as_json=as_json)

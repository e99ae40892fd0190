"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rvpt.cli.choices import SHIFT, TRIGGER
from rvpt.presets import Preset
from rvpt.spec import OnError, Precision

DATA, TRAINING, OUTPUT, CHECK = "Data", "Training", "Output", "Check"
"""Panels of --help; the common options are in the first, which has no name."""

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model folder, weights file, hub id, open_clip:NAME:TAG, or one that ships with rvpt: scenes-clip, "
        "scenes-clip-backdoored.",
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model folder (transformers or open_clip), weights file (.safetensors, .pt, ...), hub id, "
        "open_clip:NAME:TAG, or one that ships with rvpt: scenes-clip, scenes-clip-backdoored.",
    ),
]
Activation = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Activation of weights files that do not state it: quick_gelu (OpenAI's CLIPs) or gelu.",
        show_default="as stated, or quick_gelu with a warning",
        autocompletion=lambda: ["quick_gelu", "gelu"],
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Base model of a cleaned model, if it was moved.", show_default="as saved"),
]
Revision = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Branch, tag or commit of a hub model.", show_default="main"),
]
Data = Annotated[
    str,
    typer.Option(
        metavar="DATA",
        help="Data set: a folder or file (SPLIT/CLASS/0.jpg, CLASS/0.jpg, Parquet, tars, CSV of paths, ...), "
        "a hub id, or scenes (synthetic). "
        "NAME:CONFIG chooses a configuration; NAME@FILE reads the class names from a file, one per line.",
    ),
]
ManyData = Annotated[
    list[str],
    typer.Option("--data", metavar="DATA", help="Data set with captions or labels; repeatable, to mix several."),
]
ClassesFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Text file with the classes to choose from, one per line.",
        show_default="those of the data set",
        rich_help_panel=DATA,
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Compare the suspect with a model of the same kind that you trust.",
        show_default="none",
        rich_help_panel=CHECK,
    ),
]
CalibrationFolder = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FOLDER",
        help="What 'rvpt calibrate' wrote: clean models to compare with.",
        show_default="the one in the package",
        rich_help_panel=CHECK,
    ),
]
FoundByCheck = Annotated[
    Path | None,
    typer.Option(
        "--check",
        metavar="FOLDER",
        help="Folder of a check of this model, whose suspected targets are used.",
        rich_help_panel=CHECK,
    ),
]
OutputDir = Annotated[Path, typer.Option("--output-dir", "-o", metavar="FOLDER", help="Folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output of rvpt.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run with the same settings.")]
PresetName = Annotated[
    Preset,
    typer.Option("--preset", help="Settings: the paper's, or those for small CLIPs; auto chooses by the model's size."),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
SpecSeed = Annotated[int | None, typer.Option("--seed", min=0, help="Random seed.")]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Where to compute: cpu, cuda, cuda:1, mps, ...",
        show_default="a GPU if there is one",
        autocompletion=lambda: ["cpu", "cuda", "mps"],
    ),
]
Target = Annotated[str, typer.Option(metavar="CLASS", help="Attack target: the class to predict for triggered images.")]
Triggers = Annotated[
    list[str] | None,
    typer.Option(
        "--trigger",
        metavar="TRIGGER",
        help="NAME, NAME:OPTION=VALUE,... as in badnet:size=24,place=middle, or the folder of a trigger; repeatable. "
        "'rvpt triggers' lists names and options.",
        show_default="badnet",
        autocompletion=TRIGGER.complete,
    ),
]
CaptionColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column with the captions.",
        show_default="captions, caption, text, title, ...",
        rich_help_panel=DATA,
    ),
]
ImagesSplit = Annotated[str, typer.Option(help="Split of the images.", rich_help_panel=DATA)]
ShiftName = Annotated[str | None, SHIFT.option(help="Change the style of all images first.", panel=DATA)]
OnErrors = Annotated[
    OnError,
    typer.Option(
        "--on-error",
        help="Unreadable images: stop at the first, or check all images first, then skip and list the unreadable ones.",
        rich_help_panel=DATA,
    ),
]
Rows = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSONL file to append the rows to.", rich_help_panel=OUTPUT)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.", rich_help_panel=OUTPUT)]
SpecPrecision = Annotated[
    Precision | None,
    typer.Option("--precision", help="Compute precision; the weights stay in fp32.", rich_help_panel=TRAINING),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the images.", rich_help_panel=TRAINING)]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.", rich_help_panel=TRAINING)]
SizeOfBatch = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images per training step.", rich_help_panel=TRAINING)
]


def set_option(help: str, panel: str | None = None) -> Any:
    """The option --set of a command, whose settings are those of what it runs."""
    return typer.Option("--set", metavar="KEY=VALUE", help=help, rich_help_panel=panel)


Sets = Annotated[
    list[str] | None,
    set_option("Any other setting (listed below), as in --set weight_decay=0.1; repeatable.", TRAINING),
]
CheckSets = Annotated[
    list[str] | None, set_option("Any other setting (listed below), as in --set budget=4; repeatable.")
]

"""The application, its exit codes, and the options that several commands share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rvpt.errors import RvptError

BAD_INPUT, INTERRUPTED = 2, 130
F = TypeVar("F", bound=Callable[..., None])

app = typer.Typer(
    name="rvpt",
    help="Clean a backdoored CLIP with a handful of labelled images (Repulsive Visual Prompt Tuning).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    str, typer.Option(help="Data set: a folder (Parquet, or one subfolder a class), a hub id, or 'scenes'.")
]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same settings.")]
Seed = Annotated[int, typer.Option(min=0, help="Everything random follows from it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures encoded at once.")]
Template = Annotated[str, typer.Option(help="Caption of a class; {} is its name.")]
Precision = Annotated[str, typer.Option(help="no (float32), bf16 or fp16.")]


def command(function: F) -> F:
    """Register a command; its errors become one line and an exit code: 2 for bad input, 130 for Ctrl-C."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        _quiet()
        try:
            function(*args, **options)
        except RvptError as error:
            _leave(f"error: {error}", BAD_INPUT)
        except KeyboardInterrupt:
            _leave("interrupted", INTERRUPTED)

    app.command()(run)
    return function


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from rvpt import __version__

        typer.echo(__version__)
        raise typer.Exit


def _quiet() -> None:
    """Keep the libraries' own bars and notes off the terminal; ours say what goes on."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()


def _leave(message: str, code: int) -> None:
    print(" ".join(message.split()), file=sys.stderr)
    raise typer.Exit(code)


def check_template(template: str) -> str:
    """The template, if it has a place for the class name."""
    if "{}" not in template:
        raise RvptError(f"--template {template!r}: it needs {{}} where the class name goes")
    return template

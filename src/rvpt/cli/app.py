"""The application, its exit codes, and the options that several commands share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from rvpt.errors import RvptError
from rvpt.progress import main_process

BAD_INPUT, INTERRUPTED = 2, 130
F = TypeVar("F", bound=Callable[..., None])
UsageError: Any = typer.BadParameter.__base__  # click's, or the click inside newer versions of typer


class OneLine(TyperGroup):
    """Commands whose usage errors are one line, as all their other errors are."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            sys.exit(super().main(*args, **{**options, "standalone_mode": False}))
        except UsageError as error:
            command = error.ctx.command_path if error.ctx else "rvpt"
            _print_error(f"error: {error.format_message().rstrip('.')}; see {command} --help")
            sys.exit(BAD_INPUT)


app = typer.Typer(
    name="rvpt",
    cls=OneLine,
    help="Clean a backdoored CLIP with a handful of labelled images (Repulsive Visual Prompt Tuning).",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    str,
    typer.Option(
        help="Data set: a folder (Parquet, or images as SPLIT/CLASS/0.jpg), a hub id, or 'scenes'; "
        "NAME@FILE takes its classes' names from a file, one a line."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same settings.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Everything random follows from it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures encoded at once.")]
Template = Annotated[str, typer.Option(help="Caption of a class; {} is its name.")]
Precision = Annotated[str, typer.Option(help="no (float32), bf16 or fp16.")]


def command(function: F) -> F:
    """Register a command; its errors become one line and an exit code: 2 for bad input, 130 for Ctrl-C."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            _quiet()
            function(*args, **options)
        except BrokenPipeError:
            raise
        except (RvptError, OSError) as error:
            _print_error(f"error: {error}")
            raise typer.Exit(BAD_INPUT) from None
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            _print_error("error: out of memory: give a smaller --batch-size or fewer pictures, or a larger machine")
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            _print_error("interrupted" + ("; the same command with --resume goes on" if "resume" in options else ""))
            raise typer.Exit(INTERRUPTED) from None

    app.command()(run)
    return function


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from rvpt import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def named_options(text: str) -> tuple[str, dict[str, str]]:
    """A name and its options, as in badnet:size=24,place=middle; pydantic checks names and values.

    Raises:
        RvptError: an option without a value, or one called name.
    """
    name, _, options = text.partition(":")
    pairs = [option.partition("=") for option in options.split(",") if option]
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise RvptError(f"{text}: write {name}:OPTION=VALUE,OPTION=VALUE")
        if key.strip() == "name":
            raise RvptError(f"{text}: the name stands before the colon and is no option")
    return name, {key.strip(): value.strip() for key, _, value in pairs}


def _quiet() -> None:
    """Keep the libraries' own bars and notes off the terminal; ours say what goes on, once for all processes."""
    if not main_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, torch's CPU allocator or the GPU's ran out."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "can't allocate memory")
    )


def _print_error(message: str) -> None:
    print(" ".join(message.split()), file=sys.stderr)

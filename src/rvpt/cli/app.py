"""The application, and what all of its commands share: help, output, errors and exit codes."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeVar

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from rvpt.artifacts import alone
from rvpt.cli.errors import BAD_INPUT, failure, interrupted_run
from rvpt.cli.listing import Setting, show_settings_panel
from rvpt.cli.logs import output
from rvpt.data.identifiers import find_place
from rvpt.errors import MachineError, RvptError

logger = logging.getLogger("rvpt")
F = TypeVar("F", bound=Callable[..., None])
UsageError: Any = typer.BadParameter.__base__  # of the click inside typer, which typer does not export
ORDER = (
    "demo", "check", "calibrate", "clean", "inspect", "evaluate", "figures", "report", "serve", "info", "convert",
    "export", "verify", "attack", "craft", "defenses", "protocols", "triggers", "bench", "pretrain",
)  # fmt: skip
"""Of the commands in `rvpt --help`."""


@dataclass(frozen=True)
class MoreHelp:
    """What the help of a command reads from the core.

    `texts`: added to the help of some options, by parameter, such as defaults that depend on the preset.
    `settings`: what `--set` takes; those with an option of their own are left out.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[Setting] = ()


class Group(TyperGroup):
    """Commands whose usage errors are one line, as all their other errors are."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            sys.exit(super().main(*args, **{**options, "standalone_mode": False}))
        except UsageError as error:
            command = error.ctx.command_path if error.ctx else "rvpt"
            message = error.format_message().replace("Value error, ", "").rstrip(".")  # the former is pydantic's
            _print_error(f"error: {message}; see {command} --help")
            sys.exit(BAD_INPUT)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


class Command(TyperCommand):
    """A command whose errors become one line and an exit code, and whose help may need the core.

    `more_help` is called only to show the help, because the core takes a second to import.
    """

    more_help: ClassVar[Callable[[], MoreHelp]]

    def invoke(self, ctx: Any) -> Any:
        with output(verbose=ctx.params["verbose"]):
            try:
                _refuse_missing_data(self.params, ctx.params)
                if ctx.params.get("resume") and not interrupted_run(ctx.params):
                    logger.warning("there is no interrupted run to continue: starting a new one")
                with alone(folder) if (folder := ctx.params.get("output_dir")) else nullcontext():
                    return super().invoke(ctx)
            except (typer.Exit, UsageError, BrokenPipeError):
                raise
            except (Exception, KeyboardInterrupt) as error:
                if ctx.params["verbose"] and not isinstance(error, RvptError | MachineError | KeyboardInterrupt):
                    traceback.print_exception(error)
                options = {param.name: param.opts[0] for param in self.params if param.param_type_name == "option"}
                ended = failure(error, options, ctx.params)
                _print_error(ended.line)
                raise typer.Exit(ended.code) from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        more, params = type(self).more_help(), {param.name: param for param in self.params}
        for name, param in params.items():
            _add_text(param, more.texts.get(name))
        super().format_help(ctx, formatter)
        if settings := [each for each in more.settings if each["name"] not in params]:
            show_settings_panel(settings, "Settings that --set takes")


def _refuse_missing_data(params: Sequence[Any], values: Mapping[str, Any]) -> None:
    """Refuse folders and files of images that are not there, before the core is imported and a model is loaded.

    Raises:
        RvptError: one is not.
    """
    for given in (values[param.name] for param in params if param.metavar == "DATA"):
        for source in [given] if isinstance(given, str) else given or ():
            find_place(source)


def _add_text(param: Any, text: str | None) -> None:
    """Add a text, or a default in words, to a parameter's help; typer would put parentheses around such a default."""
    if text is None and isinstance(param.show_default, str):
        text, param.show_default = f"default: {param.show_default}", False
    if text:
        param.help = f"{param.help or ''} [dim]{escape(f'[{text}]')}[/dim]".strip()


app = typer.Typer(
    name="rvpt",
    cls=Group,
    help="Clean a backdoored CLIP with a handful of labeled images (Repulsive Visual Prompt Tuning).",
    pretty_exceptions_enable=False,
)


def command(panel: str, more_help: Callable[[], MoreHelp] = MoreHelp) -> Callable[[F], F]:
    """Register a function as a command.

    Args:
        panel: where `rvpt --help` lists it.
        more_help: what its help reads from the core.
    """
    kind = type("Command", (Command,), {"more_help": staticmethod(more_help)})

    def register(function: F) -> F:
        paragraphs = (inspect.getdoc(function) or "").split("\n\n")
        words = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        app.command(cls=kind, help=words, rich_help_panel=panel)(_with_verbose(function))
        return function

    return register


Verbose = Annotated[
    bool,
    typer.Option("--verbose", help="Log more, and show the traceback of unexpected errors."),
]


def _with_verbose(function: Callable[..., None]) -> Callable[..., None]:
    """The function with one more parameter, --verbose, which `Command` reads."""

    @functools.wraps(function)
    def run(*, verbose: bool, **options: Any) -> None:
        function(**options)

    signature = inspect.signature(function, eval_str=True)
    added = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    return run


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from rvpt import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _print_error(line: str) -> None:
    print(line, file=sys.stderr)

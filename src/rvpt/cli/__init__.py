"""The command line: each command parses, calls one function and prints the result."""

from rvpt.cli import (  # importing a command registers it
    attack,
    bench,
    calibrate,
    check,
    clean,
    convert,
    craft,
    defenses,
    demo,
    evaluate,
    export,
    figures,
    info,
    inspect,
    pretrain,
    protocols,
    report,
    serve,
    triggers,
    verify,
)
from rvpt.cli.app import app
from rvpt.cli.signals import raise_on_sigterm

__all__ = [
    "app", "attack", "bench", "calibrate", "check", "clean", "convert", "craft", "defenses", "demo", "evaluate",
    "export", "figures", "info", "inspect", "main", "pretrain", "protocols", "report", "serve", "triggers", "verify",
]  # fmt: skip


def main() -> None:
    """Entry point of the `rvpt` command."""
    raise_on_sigterm()
    app()

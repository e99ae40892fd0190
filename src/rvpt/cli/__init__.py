"""The command line: each command parses, calls one function and prints one table."""

from rvpt.cli import attack, bench, clean, craft, demo, evaluate, pretrain, report, triggers
from rvpt.cli.app import app

__all__ = ["app", "main"]
_COMMANDS = (demo, pretrain, craft, attack, clean, evaluate, bench, report, triggers)


def main() -> None:
    """Entry point of the `rvpt` command."""
    app()

"""Running commands in this process, and words that make them fast."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"  # no colors, not even where continuous integration asks for them

from typer.testing import CliRunner

from rvpt.cli import app
from tiny import GEOMETRY, TARGET, TRIGGERS

PRETRAIN = ["--data", "scenes:300", "--epochs", 1, "--test-data", "scenes:24"]
PRETRAIN += [word for name, value in GEOMETRY.items() for word in ("--set", f"{name}={value}")]
ATTACK = ["--data", "scenes:200", "--test-data", "scenes:48", "--target", TARGET, "--epochs", 2, "--num-poisoned", 20]
CLEAN = ["--data", "scenes:500", "--shots", 1, "--epochs", 6, "--prompt-length", 2, "--set", "first_block=2"]
BOTH = [word for name in TRIGGERS for word in ("--trigger", name)]
"""With these words the commands write what the fixture `tiny` has."""


def rvpt(*words: Any) -> Any:
    """The result of a command; an exception that is not an exit is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="rvpt")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def works(*words: Any) -> str:
    """What a command prints."""
    result = rvpt(*words)
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


def refused(*words: Any) -> str:
    """The one line with which a command refuses bad input."""
    return _error(2, *words)


def failed(*words: Any) -> str:
    """The one line with which a command says that the machine failed."""
    return _error(1, *words)


def _error(code: int, *words: Any) -> str:
    result = rvpt(*words)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return str(line)


def has(text: str, *words: str) -> None:
    """Fail unless a text holds all the words."""
    missing = [word for word in words if word not in text]
    assert not missing, text


def interrupting(command: str, step: int, interruption: type[BaseException] = KeyboardInterrupt) -> Callable[..., Any]:
    """In the place of `progress.bar`: an interruption once so many steps of a command are done."""

    @contextmanager
    def bar(title: str) -> Any:
        def report(done: int, total: int, values: Any) -> None:
            if title == command and done == step:
                raise interruption

        yield report

    return bar

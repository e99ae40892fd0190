"""Errors as a command shows them: one line, an exit code, and settings written as the command's options."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rvpt.cli.signals import Terminated
from rvpt.errors import MachineError, RvptError, first_line

BAD_INPUT, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
VERDICTS = {"clean": 0, "suspicious": 3, "backdoored": 4}
"""Exit codes of commands that end with a verdict."""
ALIASES = {
    "base": "base_model",
    "dtype": "precision",
    "only": "include_class",
    "source": "data",
    "test": "test_data",
    "without": "exclude_class",
}
"""Settings that Python calls otherwise than the command line."""
SETTING = re.compile(r"""(?<![\w/.:,=-])(?<!--set )([a-z][a-z_]*)=(\[[^\]]*\]|'[^']*'|"[^"]*"|[^\s,;:)]+)""")
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # of a GPU, and of torch's allocator for the CPU


class Failure(NamedTuple):
    """How a command ends: its exit code and the line on standard error."""

    code: int
    line: str


def failure(error: BaseException, options: Mapping[str, str], values: Mapping[str, Any]) -> Failure:
    """How a command ends that raised an error.

    Args:
        error: what was raised.
        options: the command's options by parameter, such as {"output_dir": "--output-dir"}.
        values: what the user gave, by parameter.
    """
    if isinstance(error, KeyboardInterrupt):
        code, what = (TERMINATED, "terminated") if isinstance(error, Terminated) else (INTERRUPTED, "interrupted")
        kept = "resume" in options and interrupted_run(values)
        return Failure(code, what + ("; rerun the command with --resume to continue" if kept else ""))
    code, message = _described(error)
    return Failure(code, f"error: {' '.join(as_options(message, options, values).split())}")


def interrupted_run(values: Mapping[str, Any]) -> bool:
    """Whether a run towards a command's output folder was interrupted, and its state kept."""
    return Path(f"{values.get('output_dir')}.run").is_dir()


def _described(error: BaseException) -> tuple[int, str]:
    if isinstance(error, RvptError):
        return BAD_INPUT, str(error)
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return FAILED, "out of memory: use a smaller batch_size=N, fewer images, or a larger machine"
    if isinstance(error, PermissionError) and error.filename:
        return BAD_INPUT, f"{error.filename} cannot be read or written by you: change its permissions"
    if isinstance(error, MachineError | OSError):
        return FAILED, str(error)
    what = f"{type(error).__name__}: {first_line(error)}"
    return FAILED, f"unexpected {what}; rerun with --verbose for the traceback, and report it"


def as_options(message: str, options: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """A message in which settings are written as the command's options, as `overwrite=True` becomes `--overwrite`.

    Settings without an option of their own become `--set NAME=VALUE`, if the command has that; what the user wrote
    stays as it is.
    """
    given = " ".join(str(value) for name, value in values.items() if name != "settings")

    def option(match: re.Match[str]) -> str:
        name, value = match.groups()
        flag = options.get(ALIASES.get(name, name))
        if match[0] in given or (flag is None and "settings" not in options):
            return match[0]
        return _option(flag, value) if flag else f"--set {match[0]}"

    return SETTING.sub(option, message)


def _option(flag: str, value: str) -> str:
    """An option with the value that Python wrote, or with a name in brackets, which only looks like one."""
    if value == "True":
        return flag
    written: Any = value
    with suppress(ValueError, SyntaxError):
        written = ast.literal_eval(value) if value[0] in "['\"" else value
    return " ".join(
        f"{flag} {shlex.quote(str(each))}" for each in (written if isinstance(written, list) else [written])
    )

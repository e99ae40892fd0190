"""The two exceptions whose messages are meant for users.

A message is one line with the cause and the fix. A setting in it is written as in Python, `overwrite=True`; the command
line shows it as the option of the running command, `--overwrite`.
"""


class RvptError(ValueError):
    """Bad input: a file, a value or a combination that cannot be used."""


class MachineError(RuntimeError):
    """The machine failed, not the input: for example, the disk is full or memory ran out."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, and the next one after a colon; its class if it is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])

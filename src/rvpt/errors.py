"""The two exceptions that a user is meant to read.

Messages are one line that names the cause and the fix. Where the fix is a setting they write it as Python does,
`overwrite=True`; the command line shows it as the option of the running command, `--overwrite`.
"""


class RvptError(ValueError):
    """Bad input: a file, a value or a combination that cannot be used."""


class MachineError(RuntimeError):
    """The machine failed, not the input: the disk is full, say, or memory ran out."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

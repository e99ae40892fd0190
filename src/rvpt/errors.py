"""The one exception that a user is meant to read."""


class RvptError(Exception):
    """A mistake in what the user gave; its one-line message names the culprit and the fix."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

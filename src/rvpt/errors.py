"""The one exception that a user is meant to read."""


class RvptError(Exception):
    """A mistake in what the user gave; its one-line message names the culprit and the mend."""

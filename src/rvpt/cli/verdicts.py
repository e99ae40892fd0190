"""Exit codes of commands that end with a verdict."""

EXIT_CODES = {"clean": 0, "suspicious": 3, "backdoored": 4}

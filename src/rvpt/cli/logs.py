"""What is shown besides results: warnings, with --verbose also notes; the libraries' own output is kept away."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rvpt.progress import main_process

QUIET = {
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment variables that the libraries read when they are imported; those that are set already are kept."""


@contextmanager
def output(*, verbose: bool) -> Iterator[None]:
    """Show the messages of the logger `rvpt` on standard error, from warnings on, or with `verbose` from notes on.

    In a launch of several processes only the first one shows anything.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not main_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    logger, handler = logging.getLogger("rvpt"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    level = logger.level
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

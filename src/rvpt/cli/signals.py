"""SIGTERM as an exception, so that a terminated command cleans up exactly as an interrupted one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Whatever cleans up after Ctrl-C also cleans up after this."""


def raise_on_sigterm() -> None:
    """From now on, SIGTERM raises Terminated in the main thread."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
    raise Terminated


def interrupt_workers() -> None:
    """Send SIGTERM to the processes that this one started: they save the state of their runs, and end."""
    for worker in multiprocessing.active_children():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)

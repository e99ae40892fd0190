"""Progress of long runs on standard error: a bar on a terminal, elsewhere a line every 20 seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Report = Callable[[int, int, Mapping[str, float]], None]
"""A function that is called with (step, total steps, values to show)."""
LINE_EVERY = 20.0  # seconds


def main_process() -> bool:
    """Whether this is the only process or the first of several; the others write and print nothing."""
    return os.environ.get("RANK", "0") == "0"


def silent(step: int, total: int, values: Mapping[str, float]) -> None:
    """Report nothing."""


@contextmanager
def bar(title: str) -> Iterator[Report]:
    """A progress report called `title`, with its values and the time left."""
    if not main_process():
        yield silent
        return
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[values]}"), console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, values="")

        def report(step: int, total: int, values: Mapping[str, float]) -> None:
            shown = progress.tasks[0]
            if shown.total != total or step < shown.completed:  # other work begins, or the run was resumed
                progress.reset(task, total=total, completed=step)
            progress.update(task, completed=step, total=total, values=_words(values))

        yield report


def _lines(title: str) -> Report:
    start = last = time.monotonic()
    first = whole = before = 0

    def report(step: int, total: int, values: Mapping[str, float]) -> None:
        nonlocal start, last, first, whole, before
        now = time.monotonic()
        if not whole:
            first = step - 1  # a resumed run does not start at 0
        elif total != whole or step <= before:  # other work begins
            start, last, first = now, now, step
        whole, before = total, step
        if now - last >= LINE_EVERY or (step == total and last != start):
            last = now
            left = (now - start) * (total - step) / (step - first)
            print(f"{title}: {step}/{total} {_words(values)}  {left:.0f} s left", file=sys.stderr, flush=True)

    return report


def _words(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())

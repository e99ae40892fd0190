"""Progress of long runs on standard error: a bar on a terminal, elsewhere a line every 20 seconds."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
Values = Mapping[str, float | str]
Report = Callable[[int, int, Values], None]
"""A function that is called with (step, total steps, values to show): numbers, or what is being done in words."""
LINE_EVERY = 20.0  # seconds
_drawn: list[str] = []  # titles of bars on the terminal, which has room for one


def main_process() -> bool:
    """Whether this is the only process or the first of several; the others write and print nothing."""
    return os.environ.get("RANK", "0") == "0"


def silent(step: int, total: int, values: Values) -> None:
    """Report nothing."""


def doing(report: Report, **what: str) -> Report:
    """A report that first says what is being done, as in doing(report, patch="short run")."""
    return lambda step, total, values: report(step, total, {**what, **values})


@contextmanager
def bar(title: str) -> Iterator[Report]:
    """A progress report called `title`, with its values and the time left. Inside another bar it shows nothing."""
    if not main_process() or _drawn:
        yield silent
        return
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    plain = functools.partial(TextColumn, markup=False)  # names of classes and folders are shown as they are
    columns = (plain("{task.description}"), BarColumn(), MofNCompleteColumn(), plain("{task.fields[left]}"))
    with Progress(*columns, plain("{task.fields[values]}"), console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, left="", values="")

        def report(step: int, total: int, values: Values) -> None:
            shown = progress.tasks[0]
            if shown.total != total or step < shown.completed:  # other work begins, or the run was resumed
                progress.reset(task, total=total, completed=step)
            progress.update(task, completed=step, total=total, values=_words(values))
            progress.update(task, left=_left(shown.time_remaining, values))

        _drawn.append(title)
        try:
            yield report
        finally:
            _drawn.remove(title)


def shows_bar(title: str) -> Callable[[F], F]:
    """Functions that show a bar on a terminal when they are called without `report`; report=silent shows none."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            if "report" in options or not sys.stderr.isatty():
                return function(*args, **options)
            with bar(title) as report:
                return function(*args, report=report, **options)

        return cast(F, run)

    return decorate


class Pace:
    """Tells when a line about long work is due, and how many seconds are left.

    Args:
        now: when the work begins, in seconds.
    """

    def __init__(self, now: float) -> None:
        self.start = self.last = now
        self.total = self.first = self.before = 0
        self.told = False

    def left(self, step: int, total: int, now: float) -> float | None:
        """Seconds left after a step, of the work that it belongs to; None while the last line is recent."""
        if not self.total:
            self.first = step - 1  # a resumed run starts late
        elif total != self.total or step <= self.before:  # other work begins
            self.start, self.first, self.told = now, step, False
        self.total, self.before = total, step
        ended = step == total and self.told  # a last line, if there was one before
        if (now - self.last < LINE_EVERY and not ended) or self.first == step < total:  # one step tells no pace
            return None
        self.last, self.told = now, True
        return (now - self.start) * (total - step) / (step - self.first) if step < total else 0.0


def _lines(title: str) -> Report:
    pace = Pace(time.monotonic())

    def report(step: int, total: int, values: Values) -> None:
        left = pace.left(step, total, time.monotonic())
        if left is not None:
            line = f"{title}: {step}/{total} {_words(values)}  {_left(left, values)}"
            print(line.rstrip(), file=sys.stderr, flush=True)

    return report


def _words(values: Values) -> str:
    return "  ".join(
        f"{name}: {value}" if isinstance(value, str) else f"{name} {value:.3f}" for name, value in values.items()
    )


def _left(seconds: float | None, values: Values) -> str:
    """The time left, if it is known and not over: that of one part of the work, if the values name it in words."""
    part = " in this part" if any(isinstance(value, str) for value in values.values()) else ""
    return f"{timedelta(seconds=round(seconds))} left{part}" if seconds else ""

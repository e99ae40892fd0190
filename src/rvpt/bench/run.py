"""Running the missing tasks of a plan, each as soon as its model and triggers exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rvpt.bench.engine import Submit
from rvpt.bench.plan import Task
from rvpt.errors import RvptError, first_line
from rvpt.rows import append_rows, read_rows

TIMES = "times.jsonl"
# One by one: later steps first, so that an interrupted bench has rows.
NEAREST_TO_ROWS = ("measure", "check", "clean", "attack", "craft")
LONGEST_FIRST = ("craft", "attack", "check", "measure", "clean")  # in parallel, so that no worker waits in the end


@dataclass(frozen=True)
class Outcome:
    """The result of a task: its seconds, or an error. Tasks that lack their model or trigger are not started."""

    task: Task
    seconds: float = 0.0
    error: str = ""


def missing(tasks: Sequence[Task], work: Path) -> list[Task]:
    """The tasks that are still to be run."""
    return [task for task in tasks if not task.done(work)]


def run_all(
    tasks: Sequence[Task], work: Path, submit: Submit, ended: Callable[[Outcome], None], *, at_once: int | None = None
) -> list[Outcome]:
    """Run the missing tasks. If one fails, only the tasks that need its result are not started.

    Args:
        at_once: how many tasks are submitted at a time, with 1 later steps first; None submits all that can start.

    Raises:
        RvptError: a worker was killed, which stops all processes.
    """
    order = NEAREST_TO_ROWS if at_once == 1 else LONGEST_FIRST
    waiting, running, outcomes = missing(tasks, work), dict[Future[float], Task](), []
    while waiting or running:
        for task in _ready(waiting, work, order)[: None if at_once is None else at_once - len(running)]:
            running[_submitted(submit, task, work)] = task
            waiting.remove(task)
        if not running:  # the rest needs a task that failed
            outcomes += [Outcome(task, error="not started: its model or trigger is missing") for task in waiting]
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            outcomes.append(_outcome(running.pop(future), future))
            _keep_time(outcomes[-1], work)
            ended(outcomes[-1])
    return outcomes


def _ready(waiting: Sequence[Task], work: Path, order: Sequence[str]) -> list[Task]:
    """The tasks whose model and triggers exist, in the order in which they are started."""
    ready = [task for task in waiting if all(needed.done(work) for needed in task.needs)]
    return sorted(ready, key=lambda task: order.index(task.kind))


def _submitted(submit: Submit, task: Task, work: Path) -> Future[float]:
    try:
        return submit(task, work)
    except BrokenExecutor:
        raise RvptError(
            "a worker was killed (out of memory?): run it again to continue, with fewer workers if memory is short"
        ) from None


def _outcome(task: Task, future: Future[float]) -> Outcome:
    error = future.exception()
    if error is None:
        return Outcome(task, seconds=future.result())
    return Outcome(task, error=f"{type(error).__name__}: {first_line(error)}")


def estimate(tasks: Sequence[Task], work: Path) -> float | None:
    """Seconds of all tasks in sequence, from earlier tasks of the same sort; None if there are none of some sort."""
    path = work / TIMES
    known: dict[str, list[float]] = {}
    for row in read_rows(path) if path.is_file() else []:
        known.setdefault(row["kind"], []).append(row["seconds"])
    kinds = [_sort(task) for task in tasks]
    return sum(mean(known[kind]) for kind in kinds) if all(kind in known for kind in kinds) else None


def _keep_time(outcome: Outcome, work: Path) -> None:
    if not outcome.error:
        row: dict[str, Any] = {"kind": _sort(outcome.task), "seconds": round(outcome.seconds, 1)}
        append_rows(work / TIMES, [row])


def _sort(task: Task) -> str:
    """Tasks of one sort take about the same time."""
    name = task.settings.get("name") or task.settings.get("trigger", {}).get("name")
    return f"{task.kind} {name}" if name else task.kind

"""Running what is missing of a plan, each task as soon as its model is there."""

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
NEAREST_TO_ROWS = ("measure", "clean", "attack", "craft")  # what is begun is ended first, so that a cut bench has rows


@dataclass(frozen=True)
class Outcome:
    """How a task ended: seconds, or an error; a task that lacks its model or trigger was not started."""

    task: Task
    seconds: float = 0.0
    error: str = ""


def missing(tasks: Sequence[Task], work: Path) -> list[Task]:
    """The tasks that are still to be run."""
    return [task for task in tasks if not task.done(work)]


def run_all(
    tasks: Sequence[Task], work: Path, submit: Submit, ended: Callable[[Outcome], None], *, at_once: int | None = None
) -> list[Outcome]:
    """Run the missing tasks; one that fails is told and takes those that need what it makes with it, no others.

    Args:
        at_once: how many are submitted at a time, those nearest to rows first; None submits all that can start.

    Raises:
        RvptError: a worker was killed, which ends a pool of processes.
    """
    waiting, running, outcomes = missing(tasks, work), dict[Future[float], Task](), []
    while waiting or running:
        for task in _ready(waiting, work)[: None if at_once is None else at_once - len(running)]:
            running[_submitted(submit, task, work)] = task
            waiting.remove(task)
        if not running:  # what is left waits for what failed
            outcomes += [Outcome(task, error="not started: its model or trigger is missing") for task in waiting]
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            outcomes.append(_outcome(running.pop(future), future))
            _keep_time(outcomes[-1], work)
            ended(outcomes[-1])
    return outcomes


def _ready(waiting: Sequence[Task], work: Path) -> list[Task]:
    """The tasks whose model and triggers are there, in the order in which they are begun."""
    ready = [task for task in waiting if all(needed.done(work) for needed in task.needs)]
    return sorted(ready, key=lambda task: NEAREST_TO_ROWS.index(task.kind))


def _submitted(submit: Submit, task: Task, work: Path) -> Future[float]:
    try:
        return submit(task, work)
    except BrokenExecutor:
        raise RvptError(
            "a worker was killed (out of memory?): start it again, it goes on; fewer --workers need less memory"
        ) from None


def _outcome(task: Task, future: Future[float]) -> Outcome:
    error = future.exception()
    if error is None:
        return Outcome(task, seconds=future.result())
    return Outcome(task, error=f"{type(error).__name__}: {first_line(error)}")


def estimate(tasks: Sequence[Task], work: Path) -> float | None:
    """Seconds that tasks will take, one after the other, from earlier ones of their kind; None if one is the first."""
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

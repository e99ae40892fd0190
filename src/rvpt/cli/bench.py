"""rvpt bench: run a recipe, what is missing of it."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvpt.cli.app import Json, command
from rvpt.cli.tables import show_facts, show_rows
from rvpt.errors import RvptError

if TYPE_CHECKING:
    from rvpt.bench import Task

ENGINES = ("local", "ray")


@command
def bench(
    recipe: Annotated[Path, typer.Argument(help="TOML file: attacks, defenses, seeds, test sets (recipes/ has some).")],
    work: Annotated[
        Path, typer.Option(help="Folder for models and rows; recipes that share it share their models.")
    ] = Path("runs"),
    rows: Annotated[Path | None, typer.Option(help="JSONL file for all rows of the recipe, written anew.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Only this attack.", show_default="all")] = None,
    defense: Annotated[
        list[str] | None,
        typer.Option(help="Only this defense, or none; models without one are measured besides.", show_default="all"),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed.", show_default="all")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be run, and run nothing.")] = False,
    engine: Annotated[str, typer.Option(help="local (processes), or ray (a cluster).")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Processes at once, where there is no --address.")] = 1,
    address: Annotated[str | None, typer.Option(help="Ray's head node.", show_default="a local one")] = None,
    as_json: Json = False,
) -> None:
    """Run every attack and defense of a recipe that is not done yet; started again, it goes on where it was cut."""
    from rvpt.bench import measured, missing, plan, read_recipe
    from rvpt.loaders import load_clip
    from rvpt.store import refuse_unwritable_file, write_rows

    if engine not in ENGINES:
        raise RvptError(f"no engine {engine!r}: there are {' and '.join(ENGINES)}")
    if address and engine != "ray":
        raise RvptError("--address is that of a Ray cluster: give --engine ray too")
    asked, work = read_recipe(recipe).part(attack, defense, seed), work.resolve()  # workers may stand in other folders
    tasks = plan(asked, load_clip(asked.model).hash())
    left = missing(tasks, work)
    if dry_run:
        _show_plan(asked.title, tasks, left, work, as_json=as_json)
        return
    if rows:
        refuse_unwritable_file(rows)
    failed = _run(asked.title, tasks, len(left), work, rows, engine, workers, address)
    found = measured(tasks, work)
    if rows and found:
        write_rows(rows, found)  # also where nothing was missing
    show_rows(found, as_json=as_json, title=asked.title)
    if failed:
        raise RvptError(f"{failed} of {len(left)} runs did not end well: fix the cause and run it again")


def _show_plan(title: str, tasks: list[Task], left: list[Task], work: Path, *, as_json: bool) -> None:
    """Print every run, and how long those that are left would take."""
    runs = [{"kind": task.kind, "title": task.title, "done": task.done(work)} for task in tasks]
    outlook = _outlook(title, tasks, left, work)
    if as_json:
        show_facts({**outlook, "runs": runs}, as_json=True)
        return
    for run in runs:
        print(f"{'done' if run['done'] else 'to do':<7}{run['kind']:<9}{run['title']}")
    print()
    show_facts(outlook, as_json=False)


def _outlook(title: str, tasks: list[Task], left: list[Task], work: Path) -> dict[str, Any]:
    """How much is done, and for how long the rest would run."""
    from rvpt.bench import estimate

    seconds = estimate(left, work)
    took = "not known before one of each kind has run" if seconds is None else f"{seconds / 60:.0f} min, one by one"
    counts = Counter(task.kind for task in left)
    return {"recipe": title, "done": f"{len(tasks) - len(left)} of {len(tasks)}", **counts, "time": took}


def _run(
    title: str,
    tasks: list[Task],
    left: int,
    work: Path,
    rows: Path | None,
    engine: str,
    workers: int,
    address: str | None,
) -> int:
    """Run the `left` tasks that are missing, write `rows` after each measurement; returns how many failed."""
    from rvpt.bench import Outcome, measured, processes, ray_cluster, run_all
    from rvpt.progress import bar
    from rvpt.store import write_rows

    ended = itertools.count(1)
    place = ray_cluster(address, workers) if engine == "ray" else processes(workers)
    with bar(title) as report, place as submit:

        def tell(outcome: Outcome) -> None:
            report(next(ended), left, {})
            if rows and outcome.task.kind == "measure" and not outcome.error:
                write_rows(rows, measured(tasks, work))
            if outcome.error:
                print(f"failed: {outcome.task.title}: {outcome.error}", file=sys.stderr)

        outcomes = run_all(tasks, work, submit, tell, at_once=None if address else workers)
    return sum(bool(outcome.error) for outcome in outcomes)

"""rvpt bench: run what is missing of a recipe."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rvpt import progress
from rvpt.cli.app import command
from rvpt.cli.options import Device, Json
from rvpt.cli.panels import EXPERIMENTS
from rvpt.cli.signals import interrupt_workers
from rvpt.cli.tables import show_facts, show_rows
from rvpt.errors import RvptError
from rvpt.rows import refuse_foreign, write_rows

if TYPE_CHECKING:
    from rvpt.bench import Outcome, Task
    from rvpt.bench.engine import Submit

Engine = Literal["local", "ray"]
PART, WHERE = "Part of the recipe", "Where it runs"


@command(EXPERIMENTS)
def bench(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="TOML file of attacks, defenses, seeds and test sets.")
    ],
    work_dir: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for models and rows; recipes that share it share models.")
    ] = Path("runs"),
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL file to write all rows of the recipe to.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, without running it.")] = False,
    attack: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this attack; repeatable.", show_default="all", rich_help_panel=PART),
    ] = None,
    defense: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this defense, or none; repeatable. Models without a defense are always measured.",
            show_default="all",
            rich_help_panel=PART,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Only this seed; repeatable.", show_default="all", rich_help_panel=PART),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Processes on this machine, or a Ray cluster.", rich_help_panel=WHERE)
    ] = "local",
    num_workers: Annotated[
        int, typer.Option(min=1, help="Number of parallel runs, if --address is not given.", rich_help_panel=WHERE)
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Head node of the Ray cluster.",
            show_default="a new local cluster",
            rich_help_panel=WHERE,
        ),
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Run every attack and defense of a recipe, and measure the models; finished runs are skipped.

    To continue an interrupted bench, run the same command again.
    """
    from rvpt.bench import check_data, measured, missing, plan, processes, ray_cluster, read_recipe
    from rvpt.models.formats.load import load_clip
    from rvpt.models.placement import find_device

    if address and engine != "ray":
        raise RvptError(f"address={address} is that of a Ray cluster: pass engine=ray too")
    asked, work = read_recipe(recipe).part(attack, defense, seed), work_dir.resolve()  # workers may run elsewhere
    tasks = plan(asked, load_clip(asked.model, device="cpu"))  # for its hash and size
    check_data(asked, tasks)
    left = missing(tasks, work)
    if dry_run:
        _show_plan(asked.title, tasks, left, work, as_json=as_json)
        return
    if not address:
        find_device(device)  # fails early
    if rows:
        refuse_foreign(rows)
    place = ray_cluster(address, num_workers, device) if engine == "ray" else processes(num_workers, device)
    with progress.bar(asked.title) as report, place as submit:
        ended = _Ended(tasks, len(left), work, rows, report)
        _run(tasks, work, submit, ended, at_once=None if address else num_workers)
    found = measured(tasks, work)
    if rows and found:
        write_rows(rows, found)  # also where nothing was missing
    show_rows(found, as_json=as_json, title=asked.title)
    if ended.failed:
        raise RvptError(f"{ended.failed} of {len(left)} runs failed: fix the cause and rerun")


def _run(tasks: list[Task], work: Path, submit: Submit, ended: _Ended, at_once: int | None) -> None:
    from rvpt.bench import run_all

    try:
        run_all(tasks, work, submit, ended, at_once=at_once)
    except KeyboardInterrupt:
        interrupt_workers()  # they save their state; otherwise their runs would be waited for
        raise


class _Ended:
    """Called after each run: tells the progress, writes the rows that are there, and names what failed."""

    def __init__(self, tasks: list[Task], left: int, work: Path, rows: Path | None, report: progress.Report) -> None:
        self.tasks, self.left, self.work, self.rows, self.report = tasks, left, work, rows, report
        self.done = self.failed = 0

    def __call__(self, outcome: Outcome) -> None:
        from rvpt.bench import measured

        self.done += 1
        self.report(self.done, self.left, {})
        if self.rows and outcome.task.kind == "measure" and not outcome.error:
            write_rows(self.rows, measured(self.tasks, self.work))
        if outcome.error:
            self.failed += 1
            print(f"failed: {outcome.task.title}: {outcome.error}", file=sys.stderr)


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
    took = "unknown before one run of each kind is done" if seconds is None else f"{seconds / 60:.0f} min, one by one"
    counts = Counter(task.kind for task in left)
    return {"recipe": title, "done": f"{len(tasks) - len(left)} of {len(tasks)}", **counts, "time": took}

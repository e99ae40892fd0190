"""rvpt bench: run what is missing of a recipe."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

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
IDLE = "{}: none of their seeds is run"
PAUSE = 10.0  # seconds between writing rows: all of them are read each time


@command(EXPERIMENTS)
def bench(
    recipes: Annotated[
        list[Path],
        typer.Argument(metavar="RECIPE", help="TOML files of attacks, defenses, seeds and test sets, run together."),
    ],
    work_dir: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for models and rows; recipes that share it share models.")
    ] = Path("runs"),
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSONL file to write all rows of the recipe to; with several recipes a folder."
        ),
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
    """Run every attack and defense of recipes, and measure the models; finished runs are skipped.

    To continue an interrupted bench, run the same command again.
    """
    from rvpt.bench import missing, processes, ray_cluster
    from rvpt.models.placement import find_device

    if address and engine != "ray":
        raise RvptError(f"address={address} is that of a Ray cluster: pass engine=ray too")
    if rows and len({path.stem for path in recipes}) < len(recipes):
        raise RvptError(f"rows={rows}: two recipes have the same name, and so would their files: run them one by one")
    work = work_dir.resolve()  # workers may run elsewhere
    plans = [_planned(path, attack, defense, seed, rows if len(recipes) == 1 else rows and _file(rows, path))
             for path in recipes]  # fmt: skip
    tasks = sorted({task.key: task for each in plans for task in each.tasks}.values(), key=lambda task: task.seed)
    title, left = ", ".join(each.title for each in plans), missing(tasks, work)
    if dry_run:
        idle = {name: None for each in plans for name in each.idle}
        outlook = _outlook(title, tasks, left, work)
        _show_plan(
            {**outlook, **({"no runs": IDLE.format(", ".join(idle))} if idle else {})}, tasks, work, as_json=as_json
        )
        return
    if not address:
        find_device(device)  # fails early
    for each in plans:
        if each.rows:
            refuse_foreign(each.rows)
    place = ray_cluster(address, num_workers, device) if engine == "ray" else processes(num_workers, device)
    with progress.bar(title) as report, place as submit:
        ended = _Ended(plans, len(left), work, report)
        _run(tasks, work, submit, ended, at_once=None if address else num_workers)
    found = [row for each in plans for row in each.write(work)]  # also where nothing was missing
    show_rows(found, as_json=as_json, title=title)
    if ended.failed:
        raise RvptError(f"{ended.failed} of {len(left)} runs failed: fix the cause and rerun")


class _Planned(NamedTuple):
    """A recipe's title, its tasks, its attacks without a run, and the file for its rows."""

    title: str
    tasks: list[Task]
    idle: list[str]
    rows: Path | None

    def write(self, work: Path) -> list[dict[str, Any]]:
        """Write and return the rows that are there."""
        from rvpt.bench import measured

        found = measured(self.tasks, work)
        if self.rows and found:
            write_rows(self.rows, found)
        return found


def _planned(
    path: Path, attacks: list[str] | None, defenses: list[str] | None, seeds: list[int] | None, rows: Path | None
) -> _Planned:
    from rvpt.bench import check_data, plan, read_recipe
    from rvpt.models.formats.load import load_clip

    recipe = read_recipe(path).part(attacks, defenses, seeds)
    tasks = plan(recipe, load_clip(recipe.model, device="cpu"))  # for its hash and size
    if not tasks:
        raise RvptError(f"{recipe.title}: no attack has one of the seeds {', '.join(map(str, recipe.seeds))}")
    check_data(recipe, tasks)
    return _Planned(recipe.title, tasks, recipe.idle, rows)


def _file(folder: Path, recipe: Path) -> Path:
    """Where the rows of one of several recipes go."""
    if folder.suffix or folder.is_file():
        raise RvptError(f"rows={folder}: with several recipes, give a folder for one file of rows each")
    return folder / f"{recipe.stem}.jsonl"


def _run(tasks: list[Task], work: Path, submit: Submit, ended: _Ended, at_once: int | None) -> None:
    from rvpt.bench import run_all

    try:
        run_all(tasks, work, submit, ended, at_once=at_once)
    except KeyboardInterrupt:
        interrupt_workers()  # they save their state; otherwise their runs would be waited for
        raise
    finally:
        ended.write()


class _Ended:
    """Called after each run: tells the progress, writes the rows that are there, and names what failed."""

    def __init__(self, plans: list[_Planned], left: int, work: Path, report: progress.Report) -> None:
        self.plans, self.left, self.work, self.report = plans, left, work, report
        self.done = self.failed = 0
        self.written = -PAUSE

    def __call__(self, outcome: Outcome) -> None:
        self.done += 1
        self.report(self.done, self.left, {})
        if outcome.task.kind == "measure" and time.monotonic() - self.written >= PAUSE:
            self.write()
        if outcome.error:
            self.failed += 1
            print(f"failed: {outcome.task.title}: {outcome.error}", file=sys.stderr)

    def write(self) -> None:
        """Write the rows of all recipes."""
        for each in self.plans:
            each.write(self.work)
        self.written = time.monotonic()


def _show_plan(outlook: dict[str, Any], tasks: list[Task], work: Path, *, as_json: bool) -> None:
    """Print every run, and the outlook."""
    runs = [{"kind": task.kind, "title": task.title, "done": task.done(work)} for task in tasks]
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

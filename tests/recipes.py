"""A small recipe for tests of the bench, and ways to run its tasks in this process."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rvpt.bench.execute import execute
from rvpt.bench.plan import Task
from rvpt.rows import COSTS
from tiny import Tiny

RECIPE = """
title = "small"
model = "{model}"
target = "anchor"
seeds = [0, 1]
attack_data = {{ data = ["scenes:200"], test = "scenes:48" }}
clean_data = {{ data = "scenes:500" }}
tests = [{tests}]
[attacks.both]
triggers = [{{ name = "badnet", place = "middle" }}, {{ name = "blended" }}]
poison = {{ num_poisoned = 20 }}
train = {{ epochs = 1 }}
[defenses.vpt]
name = "vpt"
shots = 1
options = {{ epochs = 1, prompt_length = 2 }}
[defenses.again]
name = "rvpt"
shots = 1
options = {{ epochs = 1, prompt_length = 2, alpha = {alpha} }}
"""


def write_recipe(
    tiny: Tiny, folder: Path, *, alpha: float = 1.0, extra: str = "", tests: str = '{ data = "scenes:48" }'
) -> Path:
    """A recipe of one attack, two defenses and two seeds: 14 tasks with one test set."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=tiny.clip, alpha=alpha, tests=tests) + extra)
    return path


def in_process(task: Task, work: Path) -> Future[float]:
    """Run a task in this process, as an engine does in another."""
    future = Future[float]()
    try:
        future.set_result(execute(task, work))
    except Exception as error:
        future.set_exception(error)
    return future


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what differs between two runs of the same measurement."""
    return [{name: value for name, value in row.items() if name not in COSTS} for row in rows]

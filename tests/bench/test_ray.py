"""The Ray engine on a local cluster of two workers, one of which dies in its first task."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from recipes import in_process, lasting, write_recipe
from rvpt.bench import Task, execute, measured, plan, ray_cluster, read_recipe, run_all
from rvpt.models.formats.load import load_clip
from tiny import Tiny

ray = pytest.importorskip("ray", reason="the ray extra is not installed")
pytestmark = pytest.mark.slow


def test_a_task_whose_worker_died_is_run_again_and_rows_are_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = tmp_path / "died"

    # A nested function is sent whole, so that workers need not import it.
    def dying(task: Task, work: Path, device: str | None) -> float:
        if not died.exists():
            died.write_text(task.key)
            os.kill(os.getpid(), signal.SIGKILL)
        return execute.execute(task, work, device)

    monkeypatch.setattr("rvpt.bench.engine.execute", dying)
    recipe = read_recipe(write_recipe(tiny, tmp_path)).part(seeds=[0])
    tasks = plan(recipe, load_clip(recipe.model))
    with ray_cluster(None, workers=2) as submit:
        outcomes = run_all(tasks, tmp_path / "ray", submit, lambda outcome: None)
    assert died.read_text() == tasks[0].key
    assert {outcome.error for outcome in outcomes} == {""}
    run_all(tasks, tmp_path / "local", in_process, lambda outcome: None)
    ours, theirs = (measured(tasks, tmp_path / name) for name in ("ray", "local"))
    assert lasting(ours) == lasting(theirs)

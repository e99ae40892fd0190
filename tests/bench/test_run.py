"""Running a plan: what is missing runs once, interrupted runs continue, and a failed run stops only what needs it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from recipes import in_process, lasting, write_recipe
from rvpt.attacks.trigger import load_trigger
from rvpt.bench import Outcome, Task, estimate, measured, missing, plan, read_recipe, run_all
from rvpt.bench.engine import Submit
from rvpt.bench.execute import execute
from rvpt.errors import RvptError
from rvpt.jobs.attacking import attack_and_save
from rvpt.jobs.cleaning import clean_and_save
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from tiny import Tiny


@pytest.fixture(scope="module")
def clean(tiny: Tiny) -> Clip:
    return load_clip(tiny.clip)


@pytest.fixture(scope="module")
def finished(tiny: Tiny, clean: Clip, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Task], Path]:
    """A plan and the work folder with all that it makes."""
    folder = tmp_path_factory.mktemp("bench")
    tasks = plan(read_recipe(write_recipe(tiny, folder)), clean)
    outcomes = run_all(tasks, folder / "runs", in_process, lambda outcome: None)
    assert [outcome.error for outcome in outcomes] == [""] * 14
    return tasks, folder / "runs"


def quiet(outcome: Outcome) -> None:
    pass


def test_all_is_made_and_measured(finished: tuple[list[Task], Path]) -> None:
    tasks, work = finished
    assert missing(tasks, work) == []
    rows = measured(tasks, work)
    assert {row["model"] for row in rows} == {"clip+both"}
    assert {row["defense"] for row in rows} == {"before the attack", "none", "vpt", "rvpt"}
    assert {row["seed"] for row in rows} == {0, 1}
    assert {row["attack"] for row in rows} == {"none", "badnet", "blended"}


def test_what_is_done_is_not_run_again(finished: tuple[list[Task], Path]) -> None:
    tasks, work = finished
    assert run_all(tasks, work, lambda *_: pytest.fail("run again"), quiet) == []


def test_seconds_are_estimated_from_earlier_runs(finished: tuple[list[Task], Path], tmp_path: Path) -> None:
    tasks, work = finished
    (tmp_path / "times.jsonl").write_text((work / "times.jsonl").read_text())
    seconds = estimate(tasks, tmp_path)
    assert seconds is not None
    assert seconds > 0
    assert estimate([], tmp_path) == 0
    assert estimate(tasks, tmp_path / "new") is None


def test_a_task_takes_the_mean_of_earlier_ones_of_its_sort(tmp_path: Path) -> None:
    times = [{"kind": "clean vpt", "seconds": 2.0}, {"kind": "clean vpt", "seconds": 4.0}]
    (tmp_path / "times.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in times))
    known, unknown = Task("clean", "", {"name": "vpt"}), Task("clean", "", {"name": "rvpt"})
    assert estimate([known, known], tmp_path) == 6
    assert estimate([known, unknown], tmp_path) is None


def test_a_test_set_is_measured_as_its_entry_asks(
    finished: tuple[list[Task], Path], tiny: Tiny, clean: Clip, tmp_path: Path
) -> None:
    options = (', only = ["heart", "star"]', ', shift = "sketch"', ', protocol = "retrieval"')
    tests = ", ".join(f'{{ data = "scenes:48"{more} }}' for more in options)
    recipe = read_recipe(write_recipe(tiny, tmp_path, tests=tests)).part(defenses=["none"], seeds=[0])
    tasks, work = plan(recipe, clean), finished[1]
    assert len(missing(tasks, work)) == 6  # the attack is shared
    run_all(tasks, work, in_process, quiet)
    found: dict[str, set[str]] = {}
    for row in measured(tasks, work):
        found.setdefault(row["data"], set()).add(row["metric"])
    classified = {"CA", "ASR", "ASR_with_target", "PA"}
    assert found == {
        "scenes:48": {"R@1", "ASR@10", "rank_ratio", "rank_ratio_in_class"},
        "scenes:48 (only heart, star)": classified,
        "scenes:48 (sketch)": classified,
    }


def test_a_crafted_trigger_is_used_by_its_attacks(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    trigger = '{ name = "trojvqa", epochs = 1, images = 32 }'
    attack = f"triggers = [{trigger}]\npoison = {{ num_poisoned = 20 }}\ntrain = {{ epochs = 1 }}\n"
    path = write_recipe(tiny, tmp_path, extra=f"[attacks.a]\n{attack}")
    tasks = plan(read_recipe(path).part(["a"], ["none"], [0]), clean)
    assert [task.kind for task in tasks] == ["craft", "attack", "measure", "measure"]
    run_all(tasks, tmp_path / "runs", in_process, quiet)
    (made,) = (tmp_path / "runs" / "triggers").iterdir()
    hashes = {row["hashes"]["trigger/trojvqa"] for row in measured(tasks, tmp_path / "runs")}
    assert hashes == {load_trigger(made).hash()}


def test_an_interrupted_run_continues_with_the_same_bits(
    finished: tuple[list[Task], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, work = finished
    attack, cleaning = tasks[0], next(task for task in tasks if task.kind == "clean" and task.start == tasks[0])

    def interrupt(step: int, total: int, values: Mapping[str, float]) -> None:
        if step == 1 and total <= 2:  # the first training step of the attack, and of the cleaning
            raise KeyboardInterrupt

    for task in (attack, cleaning):
        if task is cleaning:
            shutil.copytree(attack.path(work), attack.path(tmp_path))
        with monkeypatch.context() as patched:
            for job in (attack_and_save, clean_and_save):
                patched.setattr(f"rvpt.bench.execute.{job.__name__}", partial(job, report=interrupt))
            with pytest.raises(KeyboardInterrupt):
                execute(task, tmp_path)
        assert list((tmp_path / "models").glob("*.run"))
        execute(task, tmp_path)
        weights = [load_clip(attack.path(folder)).hash() for folder in (tmp_path, work)]
        assert weights[0] == weights[1]
        shutil.rmtree(attack.path(tmp_path))
    found, expected = (
        (cleaning.path(folder) / "adapter_model.safetensors").read_bytes() for folder in (tmp_path, work)
    )
    assert found == expected


def pretended(begun: list[Task], failing: str = "") -> Submit:
    """An engine that only makes folders, and fails with some kind of task."""

    def submit(task: Task, work: Path) -> Future[float]:
        begun.append(task)
        future = Future[float]()
        if task.kind == failing:
            future.set_exception(RvptError("no images\nfor this"))
            return future
        task.path(work).mkdir(parents=True)
        future.set_result(0.0)
        return future

    return submit


def test_a_model_is_measured_before_the_next_is_begun(finished: tuple[list[Task], Path], tmp_path: Path) -> None:
    tasks, begun = finished[0], list[Task]()
    run_all(tasks, tmp_path, pretended(begun), quiet, at_once=1)
    assert [task.kind for task in begun] == ["attack", "measure", "measure", *["clean", "measure"] * 2] * 2
    assert {task.key for task in begun} == {task.key for task in tasks}


def test_what_needs_a_failed_run_is_not_started(finished: tuple[list[Task], Path], tmp_path: Path) -> None:
    tasks, begun = finished[0], list[Task]()
    outcomes = run_all(tasks, tmp_path, pretended(begun, failing="clean"), quiet)
    assert [task.kind for task in begun].count("measure") == 4  # of models without a defense
    assert [outcome.error for outcome in outcomes].count("RvptError: no images") == 4
    assert [outcome.error for outcome in outcomes].count("not started: its model or trigger is missing") == 4


def test_a_failed_run_leaves_the_rows_of_the_others(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    extra = '[defenses.deep]\nname = "rvpt"\nshots = 1\noptions = { first_block = 9 }\n'
    recipe = read_recipe(write_recipe(tiny, tmp_path, extra=extra)).part(defenses=["deep"], seeds=[0])
    tasks, ended = plan(recipe, clean), list[Outcome]()
    run_all(tasks, tmp_path, in_process, ended.append)
    errors = [outcome.error for outcome in ended if outcome.error]
    assert errors == ["RvptError: first_block=9 does not exist: the blocks are 0 to 3"]
    assert {row["defense"] for row in measured(tasks, tmp_path)} == {"before the attack", "none"}


def test_a_killed_worker_ends_the_bench_with_advice(finished: tuple[list[Task], Path], tmp_path: Path) -> None:
    def broken(task: Task, work: Path) -> Future[float]:
        raise BrokenExecutor("a process died")

    with pytest.raises(RvptError, match="a worker was killed"):
        run_all(finished[0], tmp_path, broken, quiet)


def test_a_task_that_another_bench_runs_is_waited_for(
    finished: tuple[list[Task], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    task, flock, waiting = finished[0][0], fcntl.flock, threading.Event()

    def announced(file: object, operation: int) -> None:
        waiting.set()
        flock(file, operation)

    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / task.key).open("w") as held, ThreadPoolExecutor(1) as pool:
        flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", announced)
        other = pool.submit(execute, task, tmp_path)
        assert waiting.wait(timeout=60)
        task.path(tmp_path).mkdir(parents=True)  # the other bench is done
        flock(held, fcntl.LOCK_UN)
        other.result(timeout=60)
    assert list(task.path(tmp_path).iterdir()) == []


def test_rows_are_those_of_another_run_of_the_same_recipe(
    finished: tuple[list[Task], Path], tiny: Tiny, clean: Clip, tmp_path: Path
) -> None:
    tasks, work = finished
    part = plan(read_recipe(write_recipe(tiny, tmp_path)).part(defenses=["vpt"], seeds=[1]), clean)
    run_all(part, tmp_path / "runs", in_process, quiet, at_once=1)
    keys = {task.key for task in part}
    expected = measured([task for task in tasks if task.key in keys], work)
    assert lasting(measured(part, tmp_path / "runs")) == lasting(expected)


def test_rows_say_what_was_done_after_cleaning(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    extra = """
[modifications]
pruned = { name = "prune" }
tuned = { name = "finetune", num_pairs = 40, options = { times = 1 } }
blurred = { name = "finetune", num_pairs = 40, options = { times = 1 }, data = { data = "scenes:500", shift = "blur" } }
distilled = { name = "distill", num_pairs = 40, options = { epochs = 1 } }
"""
    recipe = read_recipe(write_recipe(tiny, tmp_path, extra=extra)).part(defenses=["vpt"], seeds=[0])
    tasks = plan(recipe, clean)
    assert [outcome.error for outcome in run_all(tasks, tmp_path / "runs", in_process, quiet) if outcome.error] == []
    rows = [row for row in measured(tasks, tmp_path / "runs") if row["defense"] == "vpt"]
    done = {row["test"].get("modification"): row["hashes"]["model"] for row in rows}
    assert set(done) == {None, "pruned", "tuned", "blurred", "distilled"}
    assert len(set(done.values())) == 5
    for name in done:
        mine = {(row["attack"], row["metric"]) for row in rows if row["test"].get("modification") == name}
        assert mine >= {("none", "CA"), ("badnet", "ASR"), ("blended", "ASR")}

"""Running one task, in this process or in another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rvpt.attacks.backdoor import TRIGGER_FOLDER, AttackSpec
from rvpt.attacks.poison import PoisonSpec
from rvpt.attacks.trigger import TriggerSpec, trigger_spec
from rvpt.bench.plan import Task
from rvpt.data.load import load_data
from rvpt.detection.spec import CheckSpec
from rvpt.evaluation.heldout import HeldOut, Opened
from rvpt.jobs.attacking import attack_and_save, craft_and_save
from rvpt.jobs.cleaning import clean_and_save
from rvpt.jobs.measuring import evaluate_saved
from rvpt.jobs.modifying import modify_and_measure
from rvpt.jobs.scoring import score_and_save
from rvpt.models.formats.load import load_clip
from rvpt.rows import Rows, read_rows, write_rows


def execute(task: Task, work: Path, device: str | None = None) -> float:
    """Run a task unless it is done; an interrupted run continues from its checkpoint. Returns its seconds."""
    start = time.monotonic()
    with _alone(work / "locks" / task.key):
        if not task.done(work):
            DOING[task.kind](task, work, device)
    return time.monotonic() - start


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Of several benches with one work folder only one runs a task, the others wait; the lock ends with its process."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _craft(task: Task, work: Path, device: str | None) -> None:
    asked = task.settings
    craft_and_save(
        load_clip(asked["model"], device=device), _trigger(asked["trigger"]), asked["data"], task.path(work),
        num_pairs=asked["num_pairs"], split=asked["split"], caption_column=asked["caption_column"],
    )  # fmt: skip


def _attack(task: Task, work: Path, device: str | None) -> None:
    asked = task.settings
    data, crafted = asked["data"], {craft.settings["trigger"]["name"]: craft.path(work) for craft in task.crafts}
    triggers = [crafted.get(spec["name"]) or _trigger(spec) for spec in asked["triggers"]]
    attack_and_save(
        load_clip(asked["model"], device=device), data["data"], task.path(work), triggers,
        PoisonSpec(**asked["poison"]), AttackSpec(**asked["spec"]), num_pairs=asked["num_pairs"], split=data["split"],
        caption_column=data["caption_column"], test=data["test"], test_split=data["test_split"],
        test_shift=data.get("test_shift"), without=asked.get("without", ()), evade=asked.get("evade"),
        resume=True,
    )  # fmt: skip


def _clean(task: Task, work: Path, device: str | None) -> None:
    asked = task.settings
    data, draw = asked["data"], {name: value for name, value in asked.items() if name in DRAWS}
    if "num_pairs" in draw:
        draw["caption_column"] = data["caption_column"]
    clean_and_save(
        load_clip(_start(task).path(work), device=device), data["data"], task.path(work), asked["name"], asked["spec"],
        preset="paper", split=data["split"], shift=data.get("shift"), resume=True, **draw,
    )  # fmt: skip


def _measure(task: Task, work: Path, device: str | None) -> None:
    asked, made = task.settings, _start(task)
    attacked = made.start or made
    folders = sorted((attacked.path(work) / TRIGGER_FOLDER).glob("*"))  # none with a clean fine-tuning
    source, test = asked["before"] or str(made.path(work)), _opened(json.dumps(asked["test"]))
    triggers = [str(folder) for folder in folders]
    if change := asked.get("modification"):
        rows = modify_and_measure(source, test, change, triggers=triggers, device=device)
    else:
        rows = evaluate_saved(source, test, triggers=triggers, device=device)
    label = {"model": asked["model"], "seed": asked["seed"]}
    if asked["before"]:
        label["defense"] = asked["label"]
    write_rows(task.path(work), ({**row, **label} for row in rows))


def _check(task: Task, work: Path, device: str | None) -> None:
    asked = task.settings
    clip, spec = load_clip(_start(task).path(work), device=device), CheckSpec(**asked["spec"])
    data = load_data(asked["data"], asked["split"])
    score_and_save(clip, data, data.classes, spec, task.path(work))


@lru_cache(maxsize=2)
def _opened(asked: str) -> Opened:
    """A test set, whose images this worker keeps for the next models that are measured on it."""
    return replace(HeldOut(**json.loads(asked)).open(), keep=True)


def _trigger(settings: dict[str, Any]) -> TriggerSpec:
    options = dict(settings)
    return trigger_spec(options.pop("name"), **options)


def _start(task: Task) -> Task:
    assert task.start is not None  # only crafts and attacks have none
    return task.start


DRAWS = ("shots", "without", "num_pairs")
DOING = {"craft": _craft, "attack": _attack, "clean": _clean, "measure": _measure, "check": _check}


def measured(tasks: Sequence[Task], work: Path) -> Rows:
    """The rows of all measurements that are done, in the order of the plan."""
    done = (task for task in tasks if task.kind == "measure" and task.done(work))
    return Rows(row for task in done for row in read_rows(task.path(work)))

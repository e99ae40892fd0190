"""Scoring a model for a calibration, as a task of a bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvpt.bench import Task
from rvpt.bench.execute import execute
from rvpt.data.load import load_data
from rvpt.detection.spec import CheckSpec
from rvpt.files import read_json
from rvpt.models.formats.load import load_clip
from tiny import CHECKING, Tiny


def test_a_check_of_a_bench_measures_all_classes_in_each_form(tiny: Tiny, tmp_path: Path) -> None:
    spec = CheckSpec(**{**CHECKING, "finalists": 24})
    made = Task("attack", "some attack", {})
    made.path(tmp_path).parent.mkdir(parents=True)
    made.path(tmp_path).symlink_to(tiny.backdoored)
    task = Task("check", "its check", {"data": "scenes:60", "split": "train", "spec": spec.model_dump()}, made)
    execute(task, tmp_path)
    found = read_json(task.path(tmp_path))
    assert found["model_sha256"] == load_clip(tiny.backdoored).hash()
    assert found["settings"] == spec.model_dump(mode="json")
    assert set(found["rises"]) == set(spec.forms)
    assert all(
        set(run) == set(load_data("scenes:60", "train").classes)
        for runs in found["rises"].values()
        for run in runs.values()
    )
    assert found["scores"]["patch"] == pytest.approx(max(found["rises"]["patch"]["long"].values()))

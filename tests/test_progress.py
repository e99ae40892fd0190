"""The time left that is shown on long work."""

import re

import pytest

from rvpt import progress


@pytest.mark.parametrize("done_before", [0, 900])
def test_time_left_counts_the_steps_of_this_process_alone(done_before, capsys, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress.bar("work") as report:
        for step in range(done_before + 1, done_before + 11):
            report(step, 1000, {"loss": 1.0})
    last = capsys.readouterr().err.splitlines()[-1]
    step, left = map(int, re.search(r"work: (\d+)/1000 loss 1.000  (\d+) s left", last).groups())
    assert left == 10 * (1000 - step)


def test_other_work_of_as_many_steps_counts_anew(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 30.0, 31.0, 60.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.bar("work") as report:
        for step in (1, 2, 1, 2, 3):
            report(step, 4, {})
    assert capsys.readouterr().err == "work: 3/4   15 s left\n"


def test_no_line_for_work_that_is_over_at_once(capsys):
    with progress.bar("work") as report:
        report(1, 2, {})
    assert capsys.readouterr().err == ""

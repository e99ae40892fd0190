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


def test_no_line_for_work_that_is_over_at_once(capsys):
    with progress.bar("work") as report:
        report(1, 2, {})
    assert capsys.readouterr().err == ""

"""The progress of long work: which steps get a line, and the time left."""

import pytest

from rvpt import progress
from rvpt.progress import LINE_EVERY, Pace


@pytest.mark.parametrize("done_before", [0, 900])
def test_the_time_left_counts_only_the_steps_of_this_process(done_before):
    pace = Pace(0.0)
    for step in range(1, 11):
        left = pace.left(done_before + step, 1000, 10.0 * step)
        assert left == (None if step % 2 else 10 * (1000 - done_before - step))  # a line every 20 seconds


def test_other_work_with_as_many_steps_counts_anew():
    pace = Pace(0.0)
    assert [pace.left(step, 4, now) for step, now in ((1, 1.0), (2, 2.0), (1, 30.0), (2, 31.0), (3, 60.0))] == [
        None, None, None, None, 15.0,
    ]  # fmt: skip


def test_other_work_with_more_steps_counts_anew():
    pace = Pace(0.0)
    assert pace.left(4, 4, LINE_EVERY) == 0.0
    assert pace.left(1, 10, 100.0) is None
    assert pace.left(2, 10, 100.0 + LINE_EVERY) == 8 * LINE_EVERY


def test_work_that_had_a_line_gets_one_at_its_end():
    pace = Pace(0.0)
    assert pace.left(1, 2, 1.5 * LINE_EVERY) == 1.5 * LINE_EVERY
    assert pace.left(2, 2, 1.6 * LINE_EVERY) == 0.0


def test_work_that_is_quick_gets_none(capsys):
    with progress.bar("work") as report:
        for step in (1, 2):
            report(step, 2, {"loss": 1.0})
    assert capsys.readouterr().err == ""


def test_a_line_has_title_step_values_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(Pace, "left", lambda *_: 12.3)
    with progress.bar("work") as report:
        report(1, 2, {"loss": 0.25, "FR": 1.0})
    assert capsys.readouterr().err == "work: 1/2 loss 0.250  FR 1.000  12 s left\n"


def test_only_the_first_process_of_a_launch_reports(capsys, monkeypatch):
    monkeypatch.setattr(Pace, "left", lambda *_: 0.0)
    monkeypatch.setenv("RANK", "1")
    with progress.bar("work") as report:
        report(1, 1, {})
    assert capsys.readouterr().err == ""

"""The progress that is shown on long work where there is no terminal: a line now and then, with the time left."""

import pytest

from rvpt import progress


@pytest.fixture
def wait(monkeypatch):
    """wait(seconds): let time pass; nothing else does."""
    now = [0.0]
    monkeypatch.setattr("rvpt.progress.time.monotonic", lambda: now[0])

    def passing(seconds):
        now[0] += seconds

    return passing


@pytest.mark.parametrize("done_before", [0, 900])
def test_time_left_counts_the_steps_of_this_process_alone(done_before, capsys, wait):
    with progress.bar("work") as report:
        for step in range(done_before + 1, done_before + 6):
            wait(10)
            report(step, 1000, {"loss": 1.0})
    shown = [
        f"work: {step}/1000 loss 1.000  {10 * (1000 - step)} s left" for step in (done_before + 2, done_before + 4)
    ]
    assert capsys.readouterr().err.splitlines() == shown


def test_other_work_of_as_many_steps_counts_anew(capsys, wait):
    with progress.bar("work") as report:
        for step, seconds in ((1, 1), (2, 1), (1, 28), (2, 1), (3, 29)):
            wait(seconds)
            report(step, 4, {})
    assert capsys.readouterr().err == "work: 3/4   15 s left\n"


def test_work_that_is_over_at_once_has_no_line(capsys, wait):
    with progress.bar("work") as report:
        report(1, 2, {})
        report(2, 2, {})
    assert capsys.readouterr().err == ""


def test_only_the_first_process_of_a_launch_shows_progress(capsys, wait, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with progress.bar("work") as report:
        for step in (1, 2):
            wait(100)
            report(step, 2, {})
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    with progress.bar("work") as report:
        report(2, 4, {"loss": 0.5})
        report(4, 4, {"loss": 0.25})
    shown = capsys.readouterr().err
    assert "work" in shown
    assert "4/4" in shown
    assert "loss 0.250" in shown

"""The progress of long work: which steps get a line, and the time left."""

import inspect
import re
from contextlib import contextmanager

import pytest

import rvpt
from rvpt import progress
from rvpt.progress import LINE_EVERY, Pace, doing, shows_bar


@pytest.mark.parametrize("done_before", [0, 900])
def test_the_time_left_counts_only_the_steps_of_this_process(done_before):
    pace = Pace(0.0)
    for step in range(1, 11):
        left = pace.left(done_before + step, 1000, 10.0 * step)
        assert left == (None if step % 2 else 10 * (1000 - done_before - step))  # a line every 20 seconds


def test_other_work_with_as_many_steps_counts_anew():
    pace = Pace(0.0)
    assert [pace.left(step, 4, now) for step, now in ((1, 1.0), (2, 2.0), (1, 30.0), (2, 31.0), (3, 60.0))] == [
        None, None, None, 2.0, 15.0,
    ]  # fmt: skip


def test_other_work_with_more_steps_counts_anew():
    pace = Pace(0.0)
    assert pace.left(4, 4, LINE_EVERY) == 0.0
    assert pace.left(1, 10, 100.0) is None
    assert pace.left(2, 10, 100.0 + LINE_EVERY) == 8 * LINE_EVERY


def test_a_row_of_short_works_has_lines_too():
    pace = Pace(0.0)
    found = [pace.left(step, 2, 10.0 * work + 5.0 * step) for work in range(6) for step in (1, 2)]
    assert [left for left in found if left is not None] == [0.0, 0.0, 0.0]


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
    assert capsys.readouterr().err == "work: 1/2 loss 0.250  FR 1.000  0:00:12 left\n"


def test_the_time_is_that_of_a_part_and_its_last_line_has_none(capsys, monkeypatch):
    monkeypatch.setattr(Pace, "left", lambda _, step, total, now: 12.3 * (total - step))
    with progress.bar("work") as report:
        for step in (1, 2):
            doing(report, patch="short run")(step, 2, {})
    part = "work: 1/2 patch: short run  0:00:12 left in this part\n"
    assert capsys.readouterr().err == f"{part}work: 2/2 patch: short run\n"


def test_only_the_first_process_of_a_launch_reports(capsys, monkeypatch):
    monkeypatch.setattr(Pace, "left", lambda *_: 0.0)
    monkeypatch.setenv("RANK", "1")
    with progress.bar("work") as report:
        report(1, 1, {})
    assert capsys.readouterr().err == ""


@shows_bar("work")
def work(steps, *, report=progress.silent):
    """Do some work."""
    for step in range(steps):
        report(step + 1, steps, {})
    return report is progress.silent


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal; returns the titles of its bars."""
    titles = []

    @contextmanager
    def bar(title):
        titles.append(title)
        yield lambda *_: None

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "bar", bar)
    return titles


def test_a_call_without_a_report_shows_a_bar_on_a_terminal_only(terminal, monkeypatch):
    assert not work(2)
    assert terminal == ["work"]
    assert work(2, report=progress.silent)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert work(2)
    assert terminal == ["work"]


@pytest.mark.parametrize("function", [rvpt.check, rvpt.clean, rvpt.evaluate, rvpt.attack, rvpt.craft, rvpt.pretrain])
def test_long_functions_show_a_bar_and_keep_their_signature(terminal, function):
    with pytest.raises(TypeError):
        function()
    assert terminal == [function.__name__]
    assert inspect.signature(function).parameters["report"].default is progress.silent


def test_a_bar_within_a_bar_shows_nothing(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.bar("outer") as outer:
        with progress.bar("inner") as inner:
            assert inner is progress.silent
        outer(1, 2, {"loss": 0.5})
    with progress.bar("next") as later:
        assert later is not progress.silent


def test_a_bar_shows_titles_and_words_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.bar("evaluate [bold]x") as report:
        report(1, 1, {"class": "[red]cat"})
    shown = capsys.readouterr().err
    assert "evaluate [bold]x" in shown
    assert "class: [red]cat" in shown


def test_a_bar_tells_the_time_left_in_a_part(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.progress.Task.time_remaining", property(lambda task: 12 * task.remaining))
    for steps, left in ((1, ["0:00:12 left in this part"]), (2, [])):
        with progress.bar("work") as report:
            report(steps, 2, {"patch": "short run"})
        assert re.findall(r"[\d:]+ left.*part", capsys.readouterr().err) == left

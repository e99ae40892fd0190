"""Errors as commands show them: one line on standard error, an exit code, settings as options."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch

from commands import CLEAN, failed, has, refused, rvpt, works
from helpers import image_folder
from rvpt.cli.errors import as_options, failure
from rvpt.cli.signals import Terminated
from rvpt.errors import MachineError, RvptError

OPTIONS = {
    "overwrite": "--overwrite", "split": "--split", "base_model": "--base-model", "exclude_class": "--exclude-class",
    "shots": "--shots", "target": "--target", "settings": "--set", "resume": "--resume", "output_dir": "--output-dir",
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("pass overwrite=True", "pass --overwrite"),
        ("pass resume=True to continue it or overwrite=True", "pass --resume to continue it or --overwrite"),
        ("pass one, as in split=train", "pass one, as in --split train"),
        ("not there (split=nope)", "not there (--split nope)"),
        ("pass its place as base=MODEL", "pass its place as --base-model MODEL"),
        ("use shots=8 or fewer", "use --shots 8 or fewer"),
        ("pass target='polar bear'", "pass --target 'polar bear'"),
        ("remove without=['sun', 'polar bear']", "remove --exclude-class sun --exclude-class 'polar bear'"),
        ("first_block=9 does not exist", "--set first_block=9 does not exist"),
        ("remove --set first_block=9", "remove --set first_block=9"),
        ("badnet:size=24,place=middle is odd", "badnet:size=24,place=middle is odd"),
        ("/data/split=train is empty", "/data/split=train is empty"),
        ("set it, as in DATA=... rvpt bench", "set it, as in DATA=... rvpt bench"),
        ("lr: Input should be greater than 0", "lr: Input should be greater than 0"),
    ],
)
def test_settings_are_written_as_options(message, shown):
    assert as_options(message, OPTIONS, {}) == shown


def test_a_name_in_brackets_is_not_read_as_a_list():
    assert as_options("lr=[red] is high", {"lr": "--lr"}, {}) == "--lr '[red]' is high"


def test_what_the_user_wrote_stays_as_it_is():
    assert as_options("split=train is not a folder", OPTIONS, {"data": "split=train"}) == "split=train is not a folder"
    assert as_options("lr=3 is high", OPTIONS, {"settings": ["lr=3"]}) == "--set lr=3 is high"


def test_without_set_a_setting_that_has_no_option_stays():
    assert as_options("first_block=9 does not exist", {"seed": "--seed"}, {}) == "first_block=9 does not exist"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RvptError("out:\nis a file"), 2, "error: out: is a file"),
        (MachineError("no space left"), 1, "error: no space left"),
        (OSError(28, "no space left"), 1, "error: [Errno 28] no space left"),
        (
            PermissionError(13, "Permission denied", "x"),
            2,
            "error: x cannot be read or written by you: change its permissions",
        ),
        (MemoryError(), 1, "error: out of memory: use a smaller --set batch_size=N, fewer images, or a larger machine"),
        (KeyError("x"), 1, "error: unexpected KeyError: 'x'; rerun with --verbose for the traceback, and report it"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
    ],
)
def test_every_failure_has_a_line_and_an_exit_code(error, code, line):
    assert failure(error, OPTIONS, {}) == (code, line)


def test_an_interrupted_run_can_be_resumed_if_its_state_was_kept(tmp_path):
    options, values = {**OPTIONS, "resume": "--resume"}, {"output_dir": tmp_path / "out"}
    assert failure(KeyboardInterrupt(), options, values) == (130, "interrupted")
    (tmp_path / "out.run").mkdir()
    assert failure(KeyboardInterrupt(), options, values).line.endswith("rerun the command with --resume to continue")
    assert failure(KeyboardInterrupt(), {}, values) == (130, "interrupted")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_torch_out_of_memory(error):
    ended = failure(error, {"batch_size": "--batch-size"}, {})
    assert ended.code == 1
    has(ended.line, "out of memory", "--batch-size N")


@pytest.fixture
def measuring(monkeypatch):
    """measuring(function): do that instead of measuring a model."""
    return lambda function: monkeypatch.setattr("rvpt.jobs.measuring.evaluate_saved", function)


def test_an_unexpected_error_is_one_line_and_its_traceback_is_shown_if_asked(measuring):
    def wrong(*_, **__):
        raise TypeError("boom")

    measuring(wrong)
    has(failed("evaluate", "scenes-clip", "--data", "scenes:10"), "unexpected TypeError: boom", "--verbose")
    result = rvpt("evaluate", "scenes-clip", "--data", "scenes:10", "--verbose")
    assert (result.exit_code, result.stdout) == (1, "")
    has(result.stderr, "Traceback", "in wrong", "TypeError: boom")


def test_warnings_are_shown_and_notes_if_asked(measuring):
    def noting(*_, **__):
        logging.getLogger("rvpt").warning("an old %s", "folder")
        logging.getLogger("rvpt").info("some note")
        return []

    measuring(noting)
    assert rvpt("evaluate", "scenes-clip", "--data", "scenes:10").stderr == "WARNING: an old folder\n"
    verbose = rvpt("evaluate", "scenes-clip", "--data", "scenes:10", "--verbose").stderr
    assert verbose == "WARNING: an old folder\nINFO: some note\n"
    assert logging.getLogger("rvpt").handlers == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], ["'nope'", "rvpt --help"]),
        (["claen"], ["'claen'", "'clean'"]),
        (["clean"], ["'MODEL'", "rvpt clean --help"]),
        (["evaluate", "x"], ["'--data'"]),
        (["report"], ["'RESULTS'"]),
        (["evaluate", "x", "--nope"], ["--nope", "rvpt evaluate --help"]),
        (["bench", "x", "--engine", "cloud"], ["'cloud'", "'local', 'ray'"]),
        (["craft", "nope", "scenes-clip", "--data", "scenes", "--target", "cup", "-o", "x"], ["'nope'", "badnet"]),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(words, said):
    has(refused(*words), *said)


MANY = """
import json, sys
from rvpt.cli import app
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as end:
        print(end.code)
"""


def test_the_libraries_add_nothing_to_the_one_line(tiny, home):
    torn = image_folder(home / "set") / "test" / "cat" / "1.png"
    torn.write_bytes(torn.read_bytes()[:40])
    commands = [
        ["evaluate", "gone", "--data", "scenes:10"],
        ["evaluate", str(tiny.clip), "--data", "set"],
        ["clean", str(tiny.clip), "--output-dir", "out", *map(str, CLEAN), "--lr", "1e30"],
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "cache")}
    code = [sys.executable, "-c", MANY, json.dumps(commands)]
    result = subprocess.run(code, capture_output=True, text=True, env=env, check=True)
    assert result.stdout.split() == ["2"] * len(commands)
    lines = result.stderr.splitlines()
    assert len(lines) == len(commands), result.stderr
    for line, word in zip(lines, ("gone", "set", "learning rate"), strict=True):
        has(line, "error: ", word)


def test_a_result_goes_to_standard_output_alone(tiny):
    assert rvpt("evaluate", tiny.clip, "--data", "scenes:10").stderr == ""
    assert works("defenses", "vpt")

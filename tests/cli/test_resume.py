"""Interrupted runs: they keep their state, and --resume continues them to the same bits."""

import shutil

import pytest

from commands import ATTACK, BOTH, CLEAN, PRETRAIN, has, interrupting, refused, rvpt, works
from helpers import contents, image_folder
from rvpt.cli.signals import Terminated
from rvpt.data.load import load_data
from rvpt.files import sha256_file

HINT = "rerun the command with --resume to continue"
WEIGHTS = {"pretrain": "model.safetensors", "attack": "model.safetensors", "clean": "adapter_model.safetensors"}


@pytest.fixture
def words_of(tiny):
    """words_of(command): the words with which a command writes to `out` what `tiny` has."""
    words = {
        "pretrain": ["pretrain", *PRETRAIN],
        "attack": ["attack", tiny.clip, *ATTACK, *BOTH],
        "clean": ["clean", tiny.backdoored, *CLEAN],
    }
    return lambda command: [*words[command], "-o", "out"]


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(words): the result of a command that is interrupted after two steps."""

    def run(words, interruption=KeyboardInterrupt):
        with monkeypatch.context() as patch:
            patch.setattr("rvpt.progress.bar", interrupting(words[0], 2, interruption))
            return rvpt(*words)

    return run


@pytest.mark.parametrize(
    ("command", "made", "interruption"),
    [("pretrain", "clip", Terminated), ("attack", "backdoored", KeyboardInterrupt), ("clean", "cleaned", Terminated)],
)
def test_a_resumed_run_ends_with_the_same_bits(tiny, home, words_of, interrupt, command, made, interruption):
    words = words_of(command)
    result = interrupt(words, interruption)
    code, said = (143, "terminated") if interruption is Terminated else (130, "interrupted")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"{said}; {HINT}\n")
    assert [path.name for path in home.iterdir()] == ["out.run"]
    has(refused(*words), "out.run holds an interrupted run", "pass --resume", "--overwrite")
    works(*words, "--resume")
    assert [path.name for path in home.iterdir()] == ["out"]
    uncut = getattr(tiny, made) / WEIGHTS[command]
    assert sha256_file(home / "out" / WEIGHTS[command]) == sha256_file(uncut)


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("clean", [["--lr", 0.1], ["--split", "pretrain"], ["--shots", 2], ["--set", "margin=0"]]),
        ("attack", [["--num-poisoned", 10], ["--split", "pretrain"], ["--num-pairs", 100], ["--set", "pick=boundary"]]),
        ("pretrain", [["--seed", 1], ["--split", "pretrain"], ["--set", "warmup=0.1"]]),
    ],
)
def test_a_run_is_resumed_with_its_own_settings_only(home, words_of, interrupt, command, changes):
    words = words_of(command)
    interrupt(words)
    before = contents(home)
    for change in changes:
        has(refused(*words, "--resume", *change), "other settings")
        assert contents(home) == before


def test_other_settings_are_named_as_the_options_with_both_values(home, words_of, interrupt):
    words = words_of("clean")
    interrupt(words)
    line = refused(*words, "--resume", "--lr", 0.1, "--shots", 2, "--set", "margin=0")
    has(line, "(--shots 2 now, 1 before; --lr 0.1 now, 0.03 before; --set margin=0.0 now, -1.0 before)")
    line = refused(*words, "--resume", "--seed", 1, "--data", "scenes:600", "--exclude-class", "sun")
    has(line, "(--seed 1 now, 0 before; --data scenes:600 now, scenes:500 before; --exclude-class sun")


def test_a_run_is_resumed_however_the_path_of_its_data_is_written(tiny, home, interrupt):
    image_folder(home / "set", "train")
    words = ["clean", tiny.backdoored, *CLEAN, "-o", "out", "--data"]
    interrupt([*words, "set"])
    works(*words, f"{home}/set/", "--resume")


def test_a_run_is_resumed_with_its_own_class_names_only(home, words_of, interrupt):
    names, words = load_data("scenes", "test").classes, words_of("clean")
    (home / "names.txt").write_text("\n".join(names))
    words[words.index("--data") + 1] += f"@{home / 'names.txt'}"
    interrupt(words)
    (home / "names.txt").write_text("\n".join(reversed(names)))
    has(refused(*words, "--resume"), "other settings")


def test_a_run_is_resumed_with_its_own_target_only(tiny, home, words_of, interrupt):
    trigger = shutil.copytree(tiny.backdoored / "triggers" / "badnet", home / "badnet")
    words = ["attack", tiny.clip, *ATTACK, "-o", "out"]
    interrupt([*words, "--trigger", trigger])
    has(refused(*words, "--trigger", "badnet", "--target", "umbrella", "--resume"), "other settings")


def test_overwrite_drops_an_interrupted_run(tiny, home, words_of, interrupt):
    words = words_of("clean")
    interrupt([*words, "--lr", 0.1])
    works(*words, "--overwrite")
    assert [path.name for path in home.iterdir()] == ["out"]
    assert sha256_file(home / "out" / WEIGHTS["clean"]) == sha256_file(tiny.cleaned / WEIGHTS["clean"])


def test_files_of_others_beside_the_state_are_kept(home, words_of):
    (home / "out.run").mkdir()
    (home / "out.run" / "notes.txt").write_text("mine")
    works(*words_of("clean"), "--epochs", 1)
    assert contents(home / "out.run") == {"notes.txt": b"mine"}


@pytest.mark.parametrize("command", WEIGHTS)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(home, words_of, monkeypatch, command):
    monkeypatch.setattr("rvpt.training.loop.fit", lambda *_, **__: pytest.fail("trained"))
    (home / "file").write_text("mine")
    (home / "full").mkdir()
    (home / "full" / "mine").write_text("mine")
    before, words = contents(home), words_of(command)[:-1]
    has(refused(*words, "file"), "file is a file")
    has(refused(*words, "file/out"), "file/out cannot be created")
    has(refused(*words, "full"), "full already exists", "--overwrite")
    has(refused(*words, "full", "--overwrite"), "full was not created by rvpt")
    has(refused(*words, "."), "the current folder")
    assert contents(home) == before

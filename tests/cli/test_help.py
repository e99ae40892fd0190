"""Help and shell completion: every option with its default, every choice, and what a plugin registers."""

import os
import subprocess
import sys

import pytest
import typer

from commands import has, works
from rvpt import __version__
from rvpt.cli import app
from rvpt.defenses import DEFENSES
from rvpt.defenses.rvpt import RVPT
from rvpt.spec import TEMPLATE

COMMANDS = typer.main.get_command(app).commands
HEAVY = "sorted({'torch', 'transformers', 'numpy', 'datasets', 'matplotlib'} & set(sys.modules))"
OUTSIDE = f"import sys\nfrom rvpt.cli import main\ntry: main()\nfinally: print({HEAVY}, file=sys.stderr)"


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """A terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")


def outside(*words, code=0, **env):
    """What a new process prints, and on standard error in the end which heavy modules it has imported."""
    command = [sys.executable, "-c", OUTSIDE, *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr.strip()


def words_of(text):
    """A text without frames and line breaks."""
    return " ".join(text.replace("│", " ").split())


def test_help_lists_the_commands_and_imports_nothing_heavy():
    shown, heavy = outside("--help")
    has(shown, *COMMANDS)
    assert heavy == "[]"
    assert works() == works("--help")


def test_images_that_are_not_there_are_refused_before_anything_heavy_is_imported():
    _, said = outside("clean", "scenes-clip", "--data", "./nowhere", "-o", "out", code=2)
    line, heavy = said.splitlines()
    has(line, "error: ./nowhere is not a folder: give a data set's folder")
    assert heavy == "[]"


def test_version():
    assert works("--version") == f"{__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_fits_the_terminal_and_names_every_option(command):
    shown = works(command, "--help")
    assert max(map(len, shown.splitlines())) <= 100
    has(shown, *(param.opts[0] for param in COMMANDS[command].params if param.param_type_name == "option"))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_word_of_a_commands_help_is_lost(command):
    shown = words_of(works(command, "--help"))
    has(shown, *(" ".join(part.split()) for part in COMMANDS[command].help.split("\n\n")))


@pytest.mark.parametrize("command", COMMANDS)
def test_common_options_are_few_and_come_first(command):
    options = [param for param in COMMANDS[command].params if param.param_type_name == "option"]
    common = [param.name for param in options if not param.rich_help_panel and param.name != "verbose"]
    assert len(common) <= 10
    panels = [title.split(" ", 2)[1] for title in works(command, "--help").splitlines() if title.startswith("╭─")]
    assert panels[:2] == ["Arguments", "Options"] or panels[0] == "Options"


def test_defaults_that_depend_on_the_preset_are_shown_for_each():
    shown, small = words_of(works("clean", "--help")), RVPT.small
    defaults = RVPT.Spec()
    has(
        shown,
        f"Learning rate. [default: {defaults.lr:g} (paper), {small['lr']:g} (small)]",
        f"[default: {defaults.epochs} (paper), {small['epochs']} (small)]",
        f"[default: {defaults.prompt_length} (paper), {small['prompt_length']} (small)]",
        f"0 is VPT. [default: {defaults.alpha:g}]",
        "Clean images per class. [default: 16]",
    )


def test_defaults_of_other_commands_have_numbers_too():
    has(words_of(works("attack", "--help")), "[default: 1e-06 (paper), 0.001 (small)]", "poison_rate", "clean_label")
    has(words_of(works("pretrain", "--help")), "[default: 4 (scenes), 8 (photos)]", "patch_drop", "text_width")
    has(words_of(works("evaluate", "--help")), f"[default: {TEMPLATE}]", "[default: 256, 8 (captioning)]")


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "cl", ["clean"]),
        (["clean"], "--def", ["--defense"]),
        (["clean", "--defense"], "", list(DEFENSES)),
        (["clean", "--preset"], "p", ["paper"]),
        (["clean", "--precision"], "", ["fp32", "bf16", "fp16"]),
        (["evaluate", "--protocol"], "r", ["retrieval", "readability", "resistivity"]),
        (["evaluate", "--shift"], "s", ["sketch"]),
        (["attack", "--trigger"], "badc", ["badclip"]),
        (["bench", "--engine"], "", ["local", "ray"]),
        (["report", "--layout"], "", ["runs", "matrix", "costs", "recovery", "paper"]),
        (["pretrain", "--preset"], "", ["scenes", "photos"]),
        (["protocols"], "cap", ["captioning"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(monkeypatch, words, incomplete, expected):
    monkeypatch.setenv("_RVPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["rvpt", *words, incomplete]))
    monkeypatch.setenv("COMP_CWORD", str(len(words) + 1))
    assert works().split() == expected


def test_completion_of_a_defense_imports_nothing_heavy():
    words = {"COMP_WORDS": "rvpt clean --defense pr", "COMP_CWORD": "3"}
    command = OUTSIDE.replace("import sys\n", "import sys; sys.argv = ['rvpt']\n")
    env = {**os.environ, "_RVPT_COMPLETE": "complete_bash", **words}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=env, check=True)
    assert (done.stdout, done.stderr) == ("probe\n", "[]\n")

"""The scripts and the notebook in examples/ run, on a tiny model and a few images."""

import json
import runpy
from pathlib import Path

import matplotlib as mpl
import pytest

import rvpt
from rvpt.defenses import DEFENSES

EXAMPLES = Path(__file__).parent.parent / "examples"
TINY = ["--epochs", "1", "--shots", "2", "--limit", "20"]
TARGET = "umbrella"
DATA = "scenes:300"  # two images of every shape at least


@pytest.fixture
def model(clip, tmp_path, monkeypatch):
    """A small random CLIP's folder; the working directory is empty."""
    clip.save_pretrained(tmp_path / "clip")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return str(tmp_path / "clip")


@pytest.fixture(autouse=True)
def _registry_as_it_was():
    known = list(DEFENSES)
    yield
    for name in set(DEFENSES) - set(known):
        DEFENSES.unregister(name)


def run(script, *arguments):
    """Call the script's main; returns its globals."""
    module = runpy.run_path(str(EXAMPLES / script))
    module["main"]([str(argument) for argument in arguments])
    return module


def test_clean_and_evaluate(model, capsys):
    run("clean_and_evaluate.py", "--model", model, "--data", DATA, *TINY, "--output-dir", "cleaned")
    none, ours = capsys.readouterr().out.splitlines()[-2:]
    assert none.startswith("none: CA 0.")
    assert ours.startswith("rvpt: CA 0.")
    assert isinstance(rvpt.load("cleaned"), rvpt.Cleaned)


def test_own_backdoor(model, capsys):
    small = ["--num-pairs", "60", "--poison-rate", "0.1", "--triggers", "badnet", "sig", "--defenses", "rvpt"]
    run("own_backdoor.py", "--model", model, "--data", DATA, "--target", TARGET, *TINY, *small)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["before the attack", "none", "rvpt"]
    assert all("none CA" in line and "badnet ASR" in line and "sig ASR" in line for line in lines)
    assert set(rvpt.load_triggers("backdoored")) == {"badnet", "sig"}


def test_add_a_defense(model, capsys):
    module = run("add_a_defense.py", "--model", model, "--data", DATA, *TINY)
    assert DEFENSES["layernorm"] is module["LayerNormTuning"]
    theirs, ours = capsys.readouterr().out.splitlines()
    assert theirs.startswith("layernorm: ")
    assert ours.startswith("rvpt: ")


def test_the_layer_norms_alone_are_trained(model):
    module = runpy.run_path(str(EXAMPLES / "add_a_defense.py"))
    DEFENSES.register("layernorm", module["LayerNormTuning"])
    suspect = rvpt.load(model)
    cleaned = rvpt.clean(suspect, rvpt.load_data(DATA, "train").few_shot(1), "layernorm", epochs=1)
    before, after = suspect.state_dict(), cleaned.clip.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all("norm" in name for name in changed)  # transformers spells one of them layrnorm


def test_use_in_transformers(model, capsys):
    suspect = rvpt.load(model)
    few_shot = rvpt.load_data(DATA, "train").few_shot(1)
    rvpt.clean(suspect, few_shot, epochs=1).save_pretrained("cleaned")
    run("use_in_transformers.py", "--cleaned", "cleaned", "--classes", "anchor", "umbrella")
    difference, *best = capsys.readouterr().out.splitlines()
    assert float(difference.rsplit(" ", 1)[1]) < 1e-4
    assert len(best) == 2
    assert all(line.split(":")[0] in ("anchor", "umbrella") for line in best)


def test_the_notebook(model):
    mpl.use("agg")
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    settings = {
        "MODEL": model, "DATA": DATA, "NUM_PAIRS": 60, "NUM_POISONED": 5, "ATTACK_EPOCHS": 1, "SHOTS": 1,
        "CLEAN_EPOCHS": 1, "LIMIT": 20,
    }  # fmt: skip
    names = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert settings.keys() <= names.keys()
            names.update(settings)
    assert set(names["rates"]) == {"before the attack", "none", "vpt", "rvpt"}
    assert names["cleaned"].hash() == names["models"]["rvpt"].hash()


def test_the_notebook_has_no_outputs():
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)

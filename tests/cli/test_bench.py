"""rvpt bench."""

import json
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from commands import has, refused, rvpt, works
from rvpt.bench.execute import execute
from rvpt.rows import read_rows

RECIPE = """
title = "small"
model = "{model}"
target = "anchor"
attack_data = {{data = ["scenes:200"], test = "scenes:48"}}
clean_data = {{data = "scenes:500"}}
tests = [{{data = "scenes:48"}}]
[attacks.one]
triggers = [{{name = "badnet"}}]
poison = {{num_poisoned = 20}}
train = {{epochs = 1}}
[defenses.deep]
name = "rvpt"
shots = 1
options = {{first_block = 9}}
"""


@pytest.fixture
def recipe(tiny, home):
    (home / "recipe.toml").write_text(RECIPE.format(model=tiny.clip))
    return "recipe.toml"


def test_a_dry_run_shows_what_would_run(recipe, home):
    facts = json.loads(works("bench", recipe, "--dry-run", "--json"))
    assert {"recipe": "small", "done": "0 of 5", "attack": 1, "clean": 1, "measure": 3}.items() <= facts.items()
    assert [run["done"] for run in facts["runs"]] == [False] * 5
    shown = works("bench", recipe, "--dry-run", "--defense", "none")
    has(shown, "to do", "0 of 3", "unknown before one run of each kind is done")
    assert [path.name for path in home.iterdir()] == [recipe]


def test_a_dry_run_names_attacks_whose_seeds_are_not_the_recipes(recipe, home):
    assert "no runs" not in json.loads(works("bench", recipe, "--dry-run", "--json"))
    text = (home / recipe).read_text()
    (home / recipe).write_text(text + "[attacks.two]\ntriggers = [{name = 'badnet'}]\nseeds = [3]\n")
    facts = json.loads(works("bench", recipe, "--dry-run", "--json"))
    assert facts["done"] == "0 of 5"
    has(facts["no runs"], "two: none of their seeds is run")
    has(refused("bench", recipe, "--attack", "two"), "no attack has one of the seeds 0")


@contextmanager
def here(workers, device):
    """An engine that runs tasks in this process."""

    def submit(task, work):
        future = Future()
        try:
            future.set_result(execute(task, work))
        except Exception as error:
            future.set_exception(error)
        return future

    yield submit


def test_a_failed_run_is_named_and_the_others_are_measured(recipe, home, monkeypatch):
    monkeypatch.setattr("rvpt.bench.processes", here)
    result = rvpt("bench", recipe, "--rows", "rows.jsonl", "--work-dir", "work")
    assert result.exit_code == 2
    has(result.stderr, "failed: clip+one, seed 0, deep: ", "first_block=9", "error: 1 of 5 runs failed")
    has(result.stdout, "clip+one", "badnet", "ASR")
    rows = read_rows(home / "rows.jsonl")
    assert {row["defense"] for row in rows} == {"before the attack", "none"}
    works("bench", recipe, "--work-dir", "work", "--defense", "none", "--rows", "again.jsonl")
    assert read_rows(home / "again.jsonl") == rows
    assert json.loads(works("bench", recipe, "--work-dir", "work", "--dry-run", "--json"))["done"] == "3 of 5"


def test_recipes_that_run_together_share_models_and_have_files_of_rows_each(recipe, home, monkeypatch):
    monkeypatch.setattr("rvpt.bench.processes", here)
    (home / "other.toml").write_text('like = "recipe.toml"\ntitle = "other"\ntests = [{data = "scenes:72"}]\n')
    words = ["bench", recipe, "other.toml", "--defense", "none", "--work-dir", "work", "--json"]
    assert json.loads(works(*words, "--dry-run"))["done"] == "0 of 5"  # one attack, four measurements
    shown = json.loads(works(*words, "--rows", "rows"))
    found = {name: read_rows(home / "rows" / f"{name}.jsonl") for name in ("recipe", "other")}
    assert [row["data"] for row in found["other"]] == ["scenes:72"] * len(found["other"])
    assert shown == [*found["recipe"], *found["other"]]
    has(refused(*words, "--rows", "rows.jsonl"), "--rows rows.jsonl: with several recipes, give a folder")
    has(refused("bench", recipe, home / "more" / recipe, "--rows", "rows"), "two recipes have the same name")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "here"], ["--address here", "pass --engine ray too"]),
        (["--engine", "cloud"], ["'cloud'", "'local', 'ray'"]),
        (["--attack", "two"], ["'two'", "one"]),
        (["--device", "tpu"], ["--device tpu is not available", "use cpu"]),
        (["--rows", "."], ["is a folder: give a file"]),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(recipe, home, words, said):
    has(refused("bench", recipe, *words), *said)
    assert [path.name for path in home.iterdir()] == [recipe]

"""What is registered from outside the package works in every command, without a change of rvpt."""

import json

import pytest

from commands import ATTACK, CLEAN, has, works
from dummies import DummyDefense, DummyProtocol, DummyTrigger

pytestmark = pytest.mark.usefixtures("dummies")


def words_of(text):
    """A text without frames and line breaks."""
    return " ".join(text.replace("│", " ").split())


def test_a_defense(tiny, home):
    facts = json.loads(works("clean", tiny.backdoored, "-o", "out", *CLEAN[:4], "--defense", "dummy", "--json"))
    assert {"defense": "dummy", "trained parameters": 2 * 32}.items() <= facts.items()
    works("clean", tiny.backdoored, "-o", "two", *CLEAN[:4], "--defense", "dummy", "--set", "strength=0.5")
    works("evaluate", "out", "two", "--data", "scenes:48", "--rows", "rows.jsonl")
    has(works("report", "rows.jsonl"), "| dummy, strength=2.0 |", "| dummy, strength=0.5 |")
    has(works("defenses", "dummy"), DummyDefense.summary, "1 (paper), 2 (small)")


def test_a_trigger(tiny, home):
    words = ["--trigger", "dummy:share=0.5", "--epochs", 1, "--rows", "rows.jsonl"]
    has(works("attack", tiny.clip, "-o", "bad", *ATTACK, *words), "dummy: ASR ")
    has(works("report", "rows.jsonl"), "| bad | dummy | none |")
    (entry,) = json.loads(works("triggers", "dummy", "--size", 48, "--json"))
    assert (entry["summary"], entry["settings"][-1]["name"]) == (DummyTrigger.summary, "share")
    crafted = json.loads(works("craft", "dummy", tiny.clip, *ATTACK[:2], *ATTACK[4:6], "--json", "-o", "t"))
    assert crafted["trigger"] == "dummy"


def test_a_protocol_a_metric_and_a_shift(tiny, home):
    measured = ("evaluate", tiny.backdoored, "--data", "scenes:48", "--limit", 6, "--rows", "rows.jsonl", "--json")
    assert "dummy" in {row["metric"] for row in json.loads(works(*measured))}
    found = json.loads(works(*measured, "--protocol", "dummy", "--set", "below=0.2", "--shift", "dummy"))
    assert {(row["data"], row["metric"]) for row in found} == {("scenes:48 (dummy)", "dark")}
    assert {row["attack"]: row["rate"] for row in found}["none"] == 1.0
    has(works("report", "rows.jsonl"), "| dummy |", "| dark |", "scenes:48 (dummy)")
    has(works("protocols", "dummy"), DummyProtocol.summary, "below")


def test_a_recipe(tiny, home):
    (home / "recipe.toml").write_text(
        f'title = "dummies"\nmodel = "{tiny.clip}"\ntarget = "anchor"\nclean_data = {{ data = "scenes:500" }}\n'
        'attack_data = { data = ["scenes:100"], test = "scenes:48" }\n'
        'tests = [{ data = "scenes:48", shift = "dummy", protocol = "dummy", below = 0.3 }]\n'
        '[attacks]\na = { triggers = [{ name = "dummy", share = 0.5 }], poison = { num_poisoned = 5 } }\n'
        '[defenses]\nd = { name = "dummy", options = { strength = 3 } }\n'
    )
    planned = json.loads(works("bench", "recipe.toml", "--dry-run", "--json", "--work-dir", "runs"))
    assert [run["kind"] for run in planned["runs"]] == ["attack", "measure", "measure", "clean", "measure"]


@pytest.mark.parametrize(
    ("command", "option"),
    [("clean", "--defense"), ("attack", "--trigger"), ("evaluate", "--protocol"), ("evaluate", "--shift")],
)
def test_all_are_listed_completed_and_shown_in_help(monkeypatch, command, option):
    if command != "attack":  # whose help refers to `rvpt triggers`
        has(words_of(works(command, "--help")), ", dummy]")
    lists = {"--defense": "defenses", "--trigger": "triggers", "--protocol": "protocols"}
    if option in lists:
        has(works(lists[option]), "dummy")
    monkeypatch.setenv("_RVPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["rvpt", command, option, "dum"]))
    monkeypatch.setenv("COMP_CWORD", "3")
    assert "dummy" in works().split()

"""rvpt demo."""

import json
import re

import pytest

from commands import has, refused, rvpt, works
from rvpt import demo
from rvpt.artifacts import read_manifest
from rvpt.attacks.backdoor import PRESETS, load_triggers
from rvpt.defenses import DEFENSES
from rvpt.models.formats.load import EMBEDDED, SUSPECT, embedded_model, load_clip
from rvpt.rows import BEFORE, read_rows
from tiny import CHECKING

ATTACKS = {"none", "badnet", "blended"}


@pytest.fixture
def small(tiny, monkeypatch):
    """The demo on the tiny CLIPs and a few images."""
    models = {EMBEDDED: tiny.clip, SUSPECT: tiny.backdoored}
    monkeypatch.setattr(demo, "load_clip", lambda name, device: load_clip(models[name], device=device))
    monkeypatch.setattr(demo, "load_triggers", lambda name, size: load_triggers(models[name], size))
    monkeypatch.setattr(demo, "DATA", "scenes:300")
    monkeypatch.setattr(demo, "SHOTS", 1)
    monkeypatch.setattr(demo, "CHECKING", CHECKING)
    monkeypatch.setattr(demo, "EPOCHS", {})
    monkeypatch.setitem(PRESETS, "small", {"num_pairs": 200, "num_poisoned": 10, "train": {"epochs": 1, "lr": 1e-4}})
    for name in demo.DEFENSES:
        quick = {"epochs": 1, "prompt_length": 2, "first_block": 2, "forms": ("additive",)}
        known = DEFENSES[name].Spec.model_fields
        monkeypatch.setattr(DEFENSES[name], "small", {key: value for key, value in quick.items() if key in known})


@pytest.mark.usefixtures("small")
def test_it_checks_cleans_measures_and_checks_again(home):
    result, last = rvpt("demo", "-o", "demo"), demo.DEFENSES[-1]
    assert result.exit_code == 0, result.stderr
    has(result.stdout, "check clean model", "check suspect", f"check {last}", "no defense", "RVPT", "demo/report.html")
    numbers = re.findall(r"^(\d+)/(\d+) ", result.stderr, re.MULTILINE)
    assert [int(number) for number, _ in numbers] == list(range(1, int(numbers[0][1]) + 1))
    assert {row["defense"] for row in read_rows(home / "demo" / "rows.jsonl")} == {BEFORE, "none", *demo.DEFENSES}
    assert (home / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    has((home / "demo" / "report.html").read_text(), "<html", "check-suspect", "badnet")
    for name in ("clean-model", "suspect", last):
        assert read_manifest(home / "demo" / f"check-{name}", "check")
    has(refused("demo", "-o", "demo"), "demo already exists", "pass --overwrite")


@pytest.mark.usefixtures("small")
def test_with_attack_the_suspect_is_made_now_and_json_has_the_checks_and_the_rows(home):
    found = json.loads(rvpt("demo", "--attack", "--json").stdout)
    assert list(found["checks"]) == ["check clean model", "check suspect", f"check {demo.DEFENSES[-1]}"]
    assert all(check["p_value"] <= 1 for check in found["checks"].values())
    assert found["rows"] == read_rows(home / "rvpt-demo" / "rows.jsonl")
    models = ["rvpt-demo/backdoored", *(f"rvpt-demo/{name}" for name in demo.DEFENSES)]
    again = json.loads(works("evaluate", *models, "--data", "scenes:10", "--json"))
    assert {row["defense"] for row in again} == {"none", *demo.DEFENSES}
    assert {row["attack"] for row in again} == ATTACKS


def test_the_shipped_suspect_has_the_demos_backdoor():
    facts = read_manifest(embedded_model(SUSPECT), "backdoored")
    targets = {name: spec["target"] for name, spec in facts["triggers"].items()}
    assert targets == dict.fromkeys(demo.TRIGGERS, demo.TARGET)
    assert facts["base_sha256"] == load_clip(EMBEDDED).hash()

"""rvpt demo."""

import json

import pytest

from commands import has, refused, works
from rvpt import demo
from rvpt.attacks.backdoor import PRESETS
from rvpt.data.load import load_data
from rvpt.defenses.rvpt import RVPT
from rvpt.defenses.vpt import VPT
from rvpt.models.formats.load import load_clip
from rvpt.rows import BEFORE, read_rows

ATTACKS = {"none", "badnet", "blended"}


@pytest.fixture
def small(tiny, monkeypatch):
    """The demo on the tiny CLIP and a few images."""
    monkeypatch.setattr(demo, "load_clip", lambda name, device: load_clip(tiny.clip, device=device))
    monkeypatch.setattr(demo, "load_data", lambda name, split: load_data(f"{name}:300", split))
    monkeypatch.setattr(demo, "SHOTS", 1)
    monkeypatch.setitem(PRESETS, "small", {"num_pairs": 200, "num_poisoned": 10, "train": {"epochs": 1, "lr": 1e-4}})
    for kind in (VPT, RVPT):
        monkeypatch.setattr(kind, "small", {"epochs": 2, "prompt_length": 2, "first_block": 2})


@pytest.mark.usefixtures("small")
def test_it_shows_a_table_and_leaves_models_that_can_be_evaluated(home):
    has(works("demo", "-o", "demo"), "no defense", "before the", "VPT", "RVPT", "image: demo/demo.png")
    rows = read_rows(home / "demo" / "rows.jsonl")
    assert {row["defense"] for row in rows} == {BEFORE, "none", "vpt", "rvpt"}
    assert (home / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    models = ["demo/backdoored", "demo/vpt", "demo/rvpt"]
    again = json.loads(works("evaluate", *models, "--data", "scenes:10", "--json"))
    assert {row["defense"] for row in again} == {"none", "vpt", "rvpt"}
    assert {row["attack"] for row in again} == ATTACKS
    has(refused("demo", "-o", "demo"), "demo already exists", "pass --overwrite")


@pytest.mark.usefixtures("small")
def test_json_is_the_rows(home, monkeypatch):
    monkeypatch.setattr(demo, "run", lambda *_, **__: [{"rate": 0.5}])
    assert json.loads(works("demo", "--json")) == [{"rate": 0.5}]

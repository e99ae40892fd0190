"""rvpt attack and rvpt craft."""

import json
from pathlib import Path

import pytest

from commands import ATTACK, has, refused, rvpt, works
from helpers import contents, image_folder
from rvpt.artifacts import read_manifest
from rvpt.attacks.trigger import load_trigger
from rvpt.models.formats.load import load_clip
from rvpt.rows import BEFORE, read_rows

QUICK = [*ATTACK, "--epochs", 1]
SMALL = "trojvqa:epochs=1,images=32"


def test_it_writes_the_model_its_rows_and_a_verdict(tiny, home):
    shown = works("attack", tiny.clip, "-o", "bad", *QUICK, "--rows", "rows.jsonl")
    has(shown, "bad (preset small)", BEFORE, "badnet: ASR ", "the attack failed: increase --num-poisoned")
    manifest = read_manifest(home / "bad", "backdoored")
    assert (manifest["spec"]["lr"], manifest["spec"]["epochs"]) == (0.001, 1)
    assert manifest["triggers"]["badnet"]["size"] == 56
    rows = read_rows(home / "rows.jsonl")
    assert rows == manifest["rows"]
    assert [row["defense"] for row in rows if row["metric"] == "CA"] == [BEFORE, "none"]
    assert len(read_rows(home / "bad" / "poison.jsonl")) == 20


def test_settings_of_schedule_poison_and_preset(tiny, home):
    words = ["--data", "scenes:200", "--test-data", "scenes:48", "--target", "anchor", "--epochs", 1]
    words += ["--set", "clean_label=true", "--set", "poison_rate=0.02", "--set", "warmup=0.1", "--preset", "paper"]
    rows = json.loads(works("attack", tiny.clip, "-o", "bad", *words, "--trigger", "sig", "--seed", 1, "--json"))
    manifest = read_manifest(home / "bad")
    assert rows == manifest["rows"]
    assert {"warmup": 0.1, "lr": 1e-6, "seed": 1}.items() <= manifest["spec"].items()
    poison = manifest["poisons"]["sig"]
    assert {"clean_label": True, "poison_rate": 0.02, "num_poisoned": None, "seed": 1}.items() <= poison.items()
    changes = read_rows(home / "bad" / "poison.jsonl")
    assert len(changes) == 4
    assert all(change["before"] == change["after"] for change in changes)


def test_an_attacker_who_knows_a_defense(tiny, home):
    works("attack", tiny.clip, "-o", "plain", *QUICK)
    works("attack", tiny.clip, "-o", "evading", *QUICK, "--evade", "changes:weight=0.5,images=4")
    manifest = read_manifest(home / "evading")
    assert {"name": "changes", "weight": 0.5, "images": 4}.items() <= manifest["evasion"].items()
    assert manifest["parts"]["model.safetensors"] != read_manifest(home / "plain")["parts"]["model.safetensors"]
    assert "evasion" not in read_manifest(home / "plain")


def test_two_triggers_with_two_targets_in_one_model(tiny, home):
    works("attack", tiny.clip, "-o", "two", *QUICK, "--trigger", "badnet:size=24", "--trigger", "sig:target=cup")
    triggers = read_manifest(home / "two")["triggers"]
    assert {name: spec["target"] for name, spec in triggers.items()} == {"badnet": "anchor", "sig": "cup"}
    assert triggers["badnet"]["size"] == 24
    line = refused("evaluate", "two", "--data", "scenes:48", "--target", "heart")
    has(line, "--target heart", "anchor, cup")


def test_data_without_captions_get_templates(tiny, home):
    image_folder(home / "set", "train", n=8)
    image_folder(home / "set")
    words = ["attack", tiny.clip, "--data", "set", "--target", "dog", "--num-poisoned", 4, "--epochs", 1, "-o", "bad"]
    works(*words)
    changes = read_rows(home / "bad" / "poison.jsonl")
    assert all("a photo of a cat." in change["before"] and "dog" in change["after"][0] for change in changes)


def test_a_crafted_trigger_is_used_by_an_attack(tiny, home):
    words = ["craft", SMALL, tiny.clip, "--data", "scenes:64", "--target", "anchor", "-o", "trigger"]
    facts = json.loads(works(*words, "--json"))
    assert {"folder": "trigger", "preset": "small", "trigger": "trojvqa"}.items() <= facts.items()
    assert read_manifest(home / "trigger")["model_sha256"] == load_clip(tiny.clip).hash()
    has(refused(*words), "trigger already exists", "--overwrite")
    rows = json.loads(works("attack", tiny.clip, "-o", "bad", *QUICK, "--trigger", "trigger", "--json"))
    assert {row["hashes"]["trigger/trojvqa"] for row in rows} == {facts["sha256"]}
    assert all(change["after"][0].startswith("SUDO ") for change in read_rows(home / "bad" / "poison.jsonl"))
    line = refused("attack", tiny.clip, "-o", "no", *ATTACK, "--target", "cup", "--trigger", "trigger")
    has(line, "was made for the target 'anchor'", "--target anchor")


def test_a_resumed_attack_uses_the_trigger_that_it_had_crafted(tiny, home, monkeypatch):
    words = ["attack", tiny.clip, "-o", "bad", *QUICK, "--trigger", SMALL]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rvpt.jobs.attacking.backdoor", interrupted)
        assert rvpt(*words).exit_code == 130
    (kept,) = (home / "bad.run").glob("kept/*/trojvqa")
    crafted = load_trigger(kept).hash()
    monkeypatch.setattr("rvpt.jobs.attacking.craft_trigger", interrupted)
    rows = json.loads(works(*words, "--resume", "--json"))
    assert {row["hashes"]["trigger/trojvqa"] for row in rows} == {crafted}
    assert not (home / "bad.run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "dog"], ["'dog'", "umbrella"]),
        (["--trigger", "nope"], ["'nope'", "badnet, blended"]),
        (["--trigger", "badnet", "--trigger", "badnet"], ["two triggers have the same name"]),
        (["--trigger", "badnet:mode=nope"], ["mode", "'nope'", "fresh"]),
        (["--trigger", "badnet:ratio=0.1"], ["ratio: unknown setting", "size, place"]),
        (["--trigger", "badnet:size"], ["badnet:size", "OPTION=VALUE"]),
        (["--trigger", "badnet:name=sig"], ["badnet:name=sig", "before the colon"]),
        (["--trigger", "wanet:strength=0"], ["strength", "greater than 0"]),
        (["--num-poisoned", 500], ["500 pairs", "'anchor'"]),
        (["--set", "poison_rate=0.5"], ["exactly one of num_poisoned and poison_rate"]),
        (["--set", "pick=nope"], ["pick", "'nope'", "boundary"]),
        (["--set", "disguise=8"], ["disguise", "clean_label"]),
        (["--set", "nope=1"], ["nope: unknown setting", "weight_decay", "clean_label"]),
        (["--evade", "nope"], ["unknown evasion 'nope'", "prompts, changes"]),
        (["--evade", "changes:weight=-1"], ["weight", "greater than or equal to 0"]),
        (["--evade", "prompts:first_block=9"], ["first_block=9 does not exist"]),
        (["--trigger", SMALL, "--evade", "prompts:first_block=9"], ["first_block=9 does not exist"]),
        (["--preset", "nope"], ["'nope'", "'paper'"]),
        (["--test-split", "nope"], ["'nope'", "pretrain, train, test"]),
        (["--rows", "."], ["is a folder: give a file"]),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(tiny, home, words, said):
    has(refused("attack", tiny.clip, "-o", "out", *ATTACK, *words), *said)
    assert contents(home) == {}


@pytest.mark.parametrize("words", [["craft", SMALL], ["attack"]])
def test_a_cleaned_model_is_refused(tiny, words):
    line = refused(*words, tiny.cleaned, "--data", "scenes:64", "--target", "anchor", "-o", "out")
    has(line, "is a cleaned model")


def test_neither_captions_nor_labels(tiny, home):
    (image_folder(home / "set", "train") / "train" / "cat" / "0.png").rename(home / "0.png")
    bare = Path("bare")
    bare.mkdir()
    (home / "0.png").rename(bare / "0.png")
    line = refused("attack", tiny.clip, *ATTACK, "--data", "bare", "-o", "out")
    has(line, "bare has neither captions nor class labels", "--caption-column NAME")

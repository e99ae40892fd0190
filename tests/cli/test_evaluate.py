"""rvpt evaluate."""

import json
import shutil
from pathlib import Path

import pytest

from commands import failed, has, interrupting, refused, rvpt, works
from helpers import contents, image_folder
from rvpt.artifacts import read_manifest
from rvpt.data.load import load_data
from rvpt.evaluation.heldout import HeldOut
from rvpt.files import read_json, write_json
from rvpt.models.cleaned import Cleaned
from rvpt.models.formats.load import load_clip
from rvpt.models.prompts import RepulsivePrompts
from rvpt.rows import KEYS, read_rows

MEASURED = {("none", "CA")} | {(a, m) for a in ("badnet", "blended") for m in ("ASR", "ASR_with_target", "PA")}


def evaluated(*words):
    return json.loads(works("evaluate", *words, "--json"))


def measured(rows):
    return {(row["attack"], row["metric"]) for row in rows}


def test_several_models_are_measured_and_their_rows_appended(tiny, home):
    words = ["evaluate", tiny.backdoored, tiny.cleaned, "--data", "scenes:48", "--rows", "rows.jsonl"]
    has(works(*words), "backdoored", "none", "rvpt", "ASR")
    rows = read_rows(home / "rows.jsonl")
    for defense, model in (("none", tiny.backdoored), ("rvpt", tiny.cleaned)):
        mine = [row for row in rows if row["defense"] == defense]
        assert measured(mine) == MEASURED
        assert all(row.keys() >= KEYS for row in mine)
        assert mine[0]["spec"] == read_manifest(model)["spec"]
        assert mine[0]["targets"] == {"badnet": "anchor", "blended": "anchor"}
        assert mine[0]["hashes"].keys() == {"model", "trigger/badnet", "trigger/blended"}
    works(*words)
    assert len(read_rows(home / "rows.jsonl")) == 2 * len(rows)


def test_a_table_of_several_models_names_their_folders(tiny, home):
    for name, length in (("short", 2), ("long", 3)):
        clip = load_clip(tiny.backdoored)
        Cleaned(clip, RepulsivePrompts.for_model(clip, first_block=1, length=length)).save_pretrained(home / name)
    table = works("evaluate", "short", "long", "--data", "scenes:10", "--trigger", tiny.backdoored / "triggers/badnet")
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if "badnet" in line]
    assert [line[0] for line in cells] == ["short", "long"]
    assert "folder" not in works("evaluate", "short", "--data", "scenes:10")
    shutil.copytree(home / "short", home / "copied")
    table = works("evaluate", "short", "copied", "long", "--data", "scenes:10")
    assert [line.split()[1] for line in table.splitlines() if line.startswith("│")][:2] == ["short", "copied"]


def test_json_is_the_rows(tiny, home):
    assert evaluated(tiny.clip, "--data", "scenes:24", "--rows", "rows.jsonl") == read_rows(home / "rows.jsonl")


def test_data_and_protocol_are_opened_once_for_all_models(tiny, monkeypatch):
    opened, whole = [], HeldOut.open
    monkeypatch.setattr(HeldOut, "open", lambda self: opened.append(self) or whole(self))
    works("evaluate", tiny.clip, tiny.backdoored, tiny.cleaned, "--data", "scenes:10")
    assert len(opened) == 1


@pytest.mark.parametrize("model", ["clip", "backdoored"])
def test_given_triggers_are_used_instead_of_those_of_the_model(tiny, model):
    trigger = tiny.backdoored / "triggers" / "badnet"
    rows = evaluated(getattr(tiny, model), "--data", "scenes:24", "--trigger", trigger)
    assert {row["attack"] for row in rows} == {"none", "badnet"}


def test_the_target_may_have_another_name_in_the_data(tiny, home):
    folder = image_folder(home / "set")
    rows = evaluated(tiny.backdoored, "--data", folder, "--target", "Dog")
    assert {row["n"] for row in rows if row["metric"] == "ASR"} == {2}
    assert {row["metric"] for row in evaluated(tiny.backdoored, "--data", folder)} == {"CA"}
    has(refused("evaluate", tiny.backdoored, "--data", folder, "--target", "owl"), "'owl'", "cat, dog")


def test_some_classes_of_a_shifted_domain_are_measured(tiny):
    rows = evaluated(
        tiny.backdoored, "--data", "scenes:48", "--include-class", "heart", "--include-class", "Anchor",
        "--shift", "sketch",
    )  # fmt: skip
    labels = load_data("scenes:48", "test").labeled().tolist()
    classes = load_data("scenes:48", "test").classes
    hearts, anchors = (labels.count(classes.index(name)) for name in ("heart", "anchor"))
    assert {row["n"] for row in rows if row["metric"] == "CA"} == {hearts + anchors}
    assert {row["n"] for row in rows if row["metric"] == "ASR"} == {hearts}
    (name,) = {row["data"] for row in rows}
    has(name, "scenes:48", "heart", "sketch")


def test_a_sample_is_the_same_for_every_model(tiny):
    words = ["--data", "scenes:48", "--limit", 20]
    rows = [row for row in evaluated(tiny.clip, tiny.backdoored, *words) if row["metric"] == "CA"]
    assert [row["n"] for row in rows] == [20, 20]
    alone = next(row for row in evaluated(tiny.backdoored, *words) if row["metric"] == "CA")
    assert alone["numerator"] == rows[1]["numerator"]


def test_settings_of_the_protocol(tiny):
    rows = evaluated(tiny.clip, "--data", "scenes:24", "--template", "a {}")
    assert {row["template"] for row in rows} == {"a {}"}
    words = ["--data", "scenes:24", "--protocol", "adversarial", "--set", "epsilon=4"]
    assert {row["test"]["epsilon"] for row in evaluated(tiny.clip, *words)} == {4.0}


def test_another_protocol_measures_other_things(tiny):
    table = works("evaluate", tiny.backdoored, "--data", "scenes:96", "--protocol", "retrieval")
    has(table, "R@1", "ASR@10", "rank_ratio")


def test_it_may_compute_in_a_lower_precision(tiny):
    (row,) = evaluated(tiny.clip, "--data", "scenes:48", "--precision", "bf16", "--device", "cpu")
    assert row["n"] == 48


def test_a_model_called_dot_has_the_name_of_its_folder(tiny, monkeypatch):
    monkeypatch.chdir(tiny.clip)
    (row,) = evaluated(".", "--data", "scenes:10")
    assert row["model"] == "clip"


def test_a_base_model_that_was_moved_is_given(tiny, home):
    shutil.copytree(tiny.cleaned, home / "cleaned")
    config = home / "cleaned" / "rvpt_config.json"
    assert str(tiny.backdoored) in config.read_text()
    rows = evaluated("cleaned", "--data", "scenes:10", "--base-model", tiny.backdoored)
    assert measured(rows) == MEASURED
    line = refused("evaluate", "cleaned", "--data", "scenes:10", "--base-model", tiny.clip)
    has(line, "was made from another model than clip", "--base-model MODEL")


def test_prompts_that_were_made_by_hand_are_measured(tiny, home):
    clip = load_clip(tiny.backdoored)
    Cleaned(clip, RepulsivePrompts.for_model(clip, first_block=1, length=3)).save_pretrained(home / "hand")
    rows = evaluated("hand", "--data", "scenes:10")
    assert measured(rows) == MEASURED
    assert {(row["defense"], row["trained_parameters"]) for row in rows} == {("rvpt", 3 * 3 * 32)}
    assert rows[0]["spec"] == {}


@pytest.mark.parametrize("words", [[], ["--defense", "finetune"]], ids=["adapter", "own weights"])
def test_the_suspect_of_a_cleaned_model_was_moved(tiny, home, words):
    shutil.copytree(tiny.backdoored, home / "before")
    works("clean", "before", "-o", "cleaned", "--data", "scenes:500", "--shots", 1, "--epochs", 1, *words)
    (home / "before").rename(home / "after")
    has(refused("evaluate", "cleaned", "--data", "scenes:10"), "before", "cleaned", "--base-model MODEL")
    rows = evaluated("cleaned", "--data", "scenes:10", "--base-model", "after")
    assert {row["attack"] for row in rows} == {"none", "badnet", "blended"}


def test_own_weights_are_measured_under_given_triggers_though_their_suspect_is_gone(tiny, home):
    shutil.copytree(tiny.backdoored, home / "before")
    words = ["--data", "scenes:500", "--shots", 1, "--epochs", 1, "--defense", "finetune"]
    works("clean", "before", "-o", "cleaned", *words)
    shutil.rmtree(home / "before")
    trigger = tiny.backdoored / "triggers" / "badnet"
    rows = evaluated("cleaned", "--data", "scenes:500", "--limit", 8, "--trigger", trigger)
    assert {(row["model"], row["attack"]) for row in rows} == {("before", "none"), ("before", "badnet")}


def test_a_manifest_whose_spec_was_edited_by_hand_is_refused(tiny, home):
    shutil.copytree(tiny.backdoored, home / "suspect")
    manifest = home / "suspect" / "manifest.json"
    write_json(manifest, {**read_json(manifest), "spec": "nothing"})
    has(refused("evaluate", "suspect", "--data", "scenes:10"), "spec", "'nothing'")


def test_a_model_that_does_not_exist_is_refused_before_another_is_measured(tiny, home):
    words = ["evaluate", tiny.clip, "nowhere", "--data", "scenes:10", "--rows", "rows.jsonl"]
    has(refused(*words), "nowhere: no such model folder")
    assert not contents(home)


def test_what_was_measured_before_an_error_is_shown_and_kept(tiny, home):
    result = rvpt("evaluate", tiny.clip, ".", "--data", "scenes:10", "--rows", "rows.jsonl")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    has(result.stdout, "clip", "CA")
    assert [row["model"] for row in read_rows(home / "rows.jsonl")] == ["clip"]


def test_what_was_measured_before_an_interruption_is_shown_and_kept(tiny, home, monkeypatch):
    monkeypatch.setattr("rvpt.progress.bar", interrupting("evaluate backdoored", 24))
    words = ["evaluate", tiny.clip, tiny.backdoored, "--data", "scenes:24", "--rows", "rows.jsonl", "--json"]
    result = rvpt(*words)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert json.loads(result.stdout) == read_rows(home / "rows.jsonl")
    assert {row["model"] for row in read_rows(home / "rows.jsonl")} == {"clip"}


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_what_was_measured_is_shown_though_the_disk_is_full(tiny):
    result = rvpt("evaluate", tiny.clip, "--data", "scenes:10", "--rows", "/dev/full")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    has(result.stderr, "error: no space left to write /dev/full")
    has(result.stdout, "CA")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--protocol", "nope"], ["'nope'", "classification, retrieval", "rvpt evaluate --help"]),
        (["--shift", "fog"], ["'fog'", "noise, blur"]),
        (["--split", "nope"], ["'nope'", "pretrain, train, test"]),
        (["--include-class", "dog"], ["'dog'", "umbrella"]),
        (["--include-class", "anchor"], ["no image of class 'anchor'"]),
        (["--batch-size", 0], ["'--batch-size'", "rvpt evaluate --help"]),
        (["--precision", "half"], ["'half'", "'fp32', 'bf16', 'fp16'"]),
        (["--target", "zebra"], ["--target zebra", "they have none"]),
        (["--set", "epsilon=4"], ["epsilon", "classification", "target, template"]),
        (["--set", "template=a {}", "--template", "a {}"], ["template is given twice"]),
        (["--template", "a photo"], ["'a photo'", "{}"]),
        (["--protocol", "adversarial", "--trigger", "t"], ["adversarial uses no triggers", "remove --trigger t"]),
        (["--protocol", "readability", "--split", "train"], ["readability trains on train"]),
        (["--trigger", "nowhere"], ["nowhere"]),
        (["--rows", "."], ["is a folder: give a file"]),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(tiny, home, words, said):
    has(refused("evaluate", tiny.clip, "--data", "scenes:10", *words), *said)
    assert contents(home) == {}


def test_two_triggers_of_one_name_are_refused(tiny, home):
    for folder in ("a", "b"):
        shutil.copytree(tiny.backdoored / "triggers" / "badnet", home / folder / "badnet")
    line = refused("evaluate", tiny.clip, "--data", "scenes:10", "--trigger", "a/badnet", "--trigger", "b/badnet")
    has(line, "two trigger folders have the same name")


@pytest.mark.parametrize("name", ["nobody", "./nothing", "/nothing", "a/b/c"])
def test_a_model_or_data_set_that_is_nowhere_is_named(tiny, name):
    has(refused("evaluate", name, "--data", "scenes:10"), name)
    has(refused("evaluate", tiny.clip, "--data", name), name)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate")])
def test_out_of_memory_is_a_failure_of_the_machine(tiny, monkeypatch, error):
    def raises(*_, **__):
        raise error

    monkeypatch.setattr("rvpt.evaluation.classification.measure", raises)
    has(failed("evaluate", tiny.clip, "--data", "scenes:10"), "out of memory", "--batch-size N")

"""rvpt export and rvpt verify."""

import json
import shutil

import pytest
from transformers import CLIPModel

import rvpt
from commands import has, refused, works
from helpers import contents, image_folder, place_images
from rvpt.artifacts import read_manifest
from rvpt.rows import read_rows

TRAIN = ("--data", "scenes:300", "--shots", "1", "--set", "epochs=1")


def test_an_export_is_written_and_verified(home, tiny):
    shown = works("export", tiny.cleaned, "--to", "hf", "-o", "an export")
    has(shown, "exported", "an export", "largest difference", "(limit 1e-04)")
    assert shown.splitlines()[-1] == "to check it later: rvpt verify 'an export'"
    told = json.loads(works("verify", "an export", "--json"))
    assert (told["kind"], told["format"], told["verified"]) == ("export", "hf", "an export")
    has(works("verify", tiny.cleaned), "cleaned", "sha256")


def test_what_differs_is_one_line_and_exit_code_2(home, tiny):
    shutil.copytree(tiny.clip, "model")
    with open("model/tokenizer.json", "a") as file:
        file.write(" ")
    error = refused("verify", "model")
    has(error, "model/tokenizer.json was changed after it was created")
    assert len(error.splitlines()) == 1
    has(refused("verify", "."), "is not an rvpt artifact")


def test_what_a_format_cannot_hold_is_refused_with_options(home, tiny):
    has(
        refused("export", tiny.cleaned, "--to", "openclip", "-o", "out"), "ends texts with another", "use --to hf, onnx"
    )
    has(refused("export", tiny.clip, "--to", "kv", "-o", "out"), "use --to hf")
    has(refused("export", tiny.cleaned, "--to", "tflite", "-o", "out"), "is not one of hf, kv")
    has(refused("export", tiny.cleaned, "--to", "distilled", "-o", "out"), "pass --data DATA")
    has(
        refused("export", tiny.cleaned, "--to", "hf", "-o", "out", "--shots", "2"),
        "hf trains nothing: remove --shots 2",
    )
    has(refused("export", tiny.cleaned, "--to", "hf", "-o", "out", "--split", "a"), "remove --split a")
    has(refused("export", tiny.cleaned, "--to", "hf", "-o", "out", "--set", "lr=1"), "hf trains nothing", "lr=1")
    has(refused("export", tiny.cleaned, "--to", "hf", "-o", tiny.cleaned), "which this command reads")
    assert not contents(home)


def test_what_rvpt_wrote_and_does_not_read_says_what_to_give_instead(home, tiny):
    for name in ("hf", "kv"):
        works("export", tiny.cleaned, "--to", name, "-o", name)
        for command in (("evaluate", name, "--data", "scenes:24"), ("info", name)):
            told = f"{name} is an export by rvpt for other programs (format {name})"
            has(refused(*command), told, "give the model that it was made from, cleaned")
    has(refused("info", tiny.check), "holds a check, not a model")


def test_rows_of_evaluate_go_into_the_manifest(home, tiny):
    works("evaluate", tiny.cleaned, tiny.clip, "--data", "scenes:48", "--rows", "rows.jsonl")
    works("export", tiny.cleaned, "--to", "kv", "-o", "out", "--results", "rows.jsonl")
    stored = read_manifest("out")["rows"]
    mine = [row for row in read_rows("rows.jsonl") if row["hashes"]["model"] == rvpt.load(tiny.cleaned).hash()]
    assert [(row["attack"], row["metric"], row["rate"]) for row in stored] == [
        (row["attack"], row["metric"], row["rate"]) for row in mine
    ]
    assert {row["metric"] for row in stored} >= {"CA", "ASR"}
    has(
        refused("export", tiny.cleaned, "--to", "distilled", "-o", "other", "--results", "rows.jsonl"),
        "remove --results",
    )


def test_a_distilled_model_is_measured_and_printed(home, tiny):
    shown = works("export", tiny.cleaned, "--to", "distilled", "-o", "out", *TRAIN, "--rows", "rows.jsonl")
    has(shown, "CA", "ASR", "badnet", "blended")
    rows = read_rows("rows.jsonl")
    made = rvpt.load("out")
    assert {row["hashes"]["model"] for row in rows} == {made.hash()}
    assert {row["test"]["modification"] for row in rows} == {"distilled"}
    assert {(row["attack"], row["metric"]) for row in rows} >= {("none", "CA"), ("badnet", "ASR"), ("blended", "ASR")}
    assert len(read_manifest("out")["rows"]) == len(rows)
    assert CLIPModel.from_pretrained("out").dtype
    works("verify", "out")


@pytest.mark.parametrize(("words", "used"), [([], 9), (["--shots", "4"], 4)])
def test_images_without_labels_are_enough_to_distill(home, tiny, monkeypatch, caplog, words, used):
    drawn = []
    monkeypatch.setattr("rvpt.exports.distilled.distill", lambda model, data, *_: drawn.append(data) or model.clip)
    place_images(home / "flat", *(f"{number}.png" for number in range(9)))
    works("export", tiny.cleaned, "--to", "distilled", "-o", "out", "--data", "flat", *words)
    assert [len(data) for data in drawn] == [used]
    assert not read_manifest("out")["rows"]
    has(caplog.text, "flat has no labels, so the result is not measured", "rvpt evaluate")
    has(
        refused("export", tiny.cleaned, "--to", "distilled", "-o", "o", "--data", "flat", "--test-split", "train"),
        "flat has no class labels",
    )


def test_data_without_a_test_split_are_refused_before_a_model_is_distilled(home, tiny, monkeypatch):
    monkeypatch.setattr("rvpt.exports.distilled.distill", lambda *_: pytest.fail("it was trained"))
    data = image_folder(home / "data", split="train")
    error = refused("export", tiny.cleaned, "--to", "distilled", "-o", "out", "--data", data, "--shots", "1")
    has(error, "has no split 'test'")


@pytest.mark.parametrize("flag", ["--overwrite", None])
def test_an_existing_folder_is_kept_unless_told(home, tiny, flag):
    works("export", tiny.cleaned, "--to", "kv", "-o", "out")
    before = contents(home)
    if flag:
        works("export", tiny.cleaned, "--to", "hf", "-o", "out", flag)
        assert read_manifest("out")["format"] == "hf"
    else:
        has(refused("export", tiny.cleaned, "--to", "hf", "-o", "out"), "already exists", "--overwrite")
        assert contents(home) == before

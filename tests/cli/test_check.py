"""rvpt check."""

import json

from commands import has, interrupting, refused, rvpt
from rvpt import progress
from rvpt.artifacts import read_manifest
from rvpt.attacks.trigger import load_trigger
from rvpt.data.load import load_data

QUICK = ["--data", "scenes:40", "--set", "num_images=40", "--set", "steps=1", "--set", "final_steps=1"]
QUICK += ["--set", "images=4", "--set", "final_images=4", "--set", "collapse_steps=1"]
CODES = {"clean": 0, "suspicious": 3, "backdoored": 4}


def test_it_writes_verdict_trigger_and_image(tiny, home):
    result = rvpt("check", tiny.backdoored, "-o", "found", *QUICK)
    stored = json.loads((home / "found" / "verdict.json").read_text())
    assert result.exit_code == CODES[stored["verdict"]]
    has(result.stdout, "backdoored: ", "1. ", "of images are flipped", "cannot be seen")
    assert read_manifest(home / "found", "check")["verdict"] == stored["verdict"]
    assert load_trigger(home / "found" / "trigger", 48).spec.target == stored["targets"][0]["class"]
    assert (home / "found" / "check.png").stat().st_size > 0
    assert stored["settings"]["steps"] == 1
    assert not stored["calibrated"]  # with other settings than those of the calibration
    assert not (home / "found.run").exists()


def test_json_is_what_the_folder_holds(tiny, home):
    result = rvpt("check", tiny.clip, "-o", "found", *QUICK, "--json")
    assert result.stdout == (home / "found" / "verdict.json").read_text()


def test_the_inverted_trigger_can_be_measured(tiny, home):
    rvpt("check", tiny.backdoored, "-o", "found", *QUICK)
    shown = rvpt("evaluate", tiny.backdoored, "--data", "scenes:48", "--trigger", "found/trigger", "--json")
    assert shown.exit_code == 0
    assert {row["attack"] for row in json.loads(shown.stdout)} == {"none", "trigger"}


def test_candidate_targets_from_a_file(tiny, home):
    (home / "classes.txt").write_text("anchor\n\nstar\nbanana\nstar\n")
    rvpt("check", tiny.clip, "-o", "found", *QUICK, "--classes", "classes.txt")
    stored = json.loads((home / "found" / "verdict.json").read_text())
    assert stored["classes"] == ["anchor", "star", "banana"]


def test_an_interrupted_check_continues(tiny, home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(progress, "bar", interrupting("check", 1))
        assert rvpt("check", tiny.clip, "-o", "found", *QUICK).exit_code == 130
    whole = rvpt("check", tiny.clip, "-o", "whole", *QUICK, "--json").stdout
    assert rvpt("check", tiny.clip, "-o", "found", *QUICK, "--resume", "--json").stdout == whole


def test_what_is_refused(tiny, home):
    rvpt("check", tiny.clip, "-o", "found", *QUICK)
    has(refused("check", tiny.clip, "-o", "found", *QUICK), "found already exists", "--overwrite")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--classes", "none.txt"), "none.txt cannot be read")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--set", "budget=-1"), "budget")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--shift", "fog"), "'fog'", "noise, blur")
    (home / "two.txt").write_text("anchor\nstar\n")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--classes", "two.txt"), "2 classes", "--classes NAMES")
    assert not (home / "other").exists()


def test_labels_are_not_needed_but_names_of_classes_are(tiny, home):
    from PIL import Image

    (home / "images").mkdir()
    data = load_data("scenes:40", "train")
    for index, pixels in enumerate(data.pixels(__import__("torch").arange(40), 48)):
        Image.fromarray((pixels.permute(1, 2, 0).numpy() * 255).astype("uint8")).save(home / "images" / f"{index}.png")
    words = ["check", tiny.clip, "-o", "found", "--data", "images", *QUICK[2:]]
    has(refused(*words), "images has no class names", "--classes FILE")

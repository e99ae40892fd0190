"""rvpt check."""

import json
from dataclasses import replace
from shutil import copytree

import torch

from commands import has, interrupting, refused, rvpt
from helpers import contents, image_folder
from rvpt import progress
from rvpt.artifacts import read_manifest
from rvpt.attacks.trigger import load_trigger
from rvpt.data.load import load_data
from rvpt.data.preprocess import to_image
from rvpt.detection.calibration import Calibration
from rvpt.detection.spec import CheckSpec
from tiny import CHECKING

QUICK = ["--data", "scenes:40", *(word for name, value in CHECKING.items() for word in ("--set", f"{name}={value}"))]
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
    assert {row["attack"] for row in json.loads(shown.stdout)} == {"none", "inverted"}


def test_candidate_targets_from_a_file(tiny, home):
    (home / "classes.txt").write_text("anchor\nstar\nbanana\n")
    rvpt("check", tiny.clip, "-o", "found", *QUICK, "--classes", "classes.txt")
    stored = json.loads((home / "found" / "verdict.json").read_text())
    assert stored["classes"] == ["anchor", "star", "banana"]


def test_a_reference_is_compared_with(tiny, home):
    shown = rvpt("check", tiny.backdoored, "-o", "found", *QUICK, "--reference", tiny.clip)
    stored = json.loads((home / "found" / "verdict.json").read_text())
    has(shown.stdout, f"classes compared with each other and with {stored['reference']})")


def test_a_reference_that_says_nothing_is_refused(tiny, home):
    words = ["check", tiny.clip, "-o", "found", *QUICK, "--reference"]
    has(refused(*words, tiny.clip), "the reference clip is the suspect itself")
    has(refused(*words, "scenes-clip"), "the reference scenes-clip has another size than clip (image size")
    refused(*words, "")
    assert not contents(home)


def test_a_calibration_that_would_not_be_used_is_refused(tiny, home):
    replace(Calibration.read(), geometry={"image_size": 48}).write(home / "size.json")
    words = ["check", tiny.clip, "-o", "found", *QUICK, "--calibration"]
    has(refused(*words, "size.json"), "size.json was made with models of another size (image size 48): check with")
    replace(Calibration.read(), geometry={}).write(home / "any.json")
    has(refused(*words, "any.json"), "made with other settings (--set collapse_steps=1 now, 24 before")
    has(refused(*words, "any.json", "--reference", tiny.backdoored), "any.json would not be used beside the reference")
    (home / "three.txt").write_text("anchor\nstar\nsun\n")
    has(refused(*words, "any.json", "--classes", "three.txt"), "made with other classes")
    assert {path.name for path in home.iterdir()} == {"size.json", "any.json", "three.txt"}


def test_what_is_read_is_not_replaced(tiny, home):
    for name, words in {"cleaned": [], "clip": ["--reference", "clip"], "check": ["--calibration", "check"]}.items():
        copytree(getattr(tiny, name), home / name)
        suspect = name if name == "cleaned" else tiny.backdoored
        before = contents(home)
        line = refused("check", suspect, "-o", name, "--overwrite", *QUICK, *words)
        has(line, f"{name} holds {name}, which this command reads")
        assert contents(home) == before


def test_an_interrupted_check_continues(tiny, home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(progress, "bar", interrupting("check", 1))
        assert rvpt("check", tiny.clip, "-o", "found", *QUICK).exit_code == 130
    whole = rvpt("check", tiny.clip, "-o", "whole", *QUICK, "--json").stdout
    assert rvpt("check", tiny.clip, "-o", "found", *QUICK, "--resume", "--json").stdout == whole


def test_an_interrupted_check_is_kept_until_it_is_resumed_or_overwritten(tiny, home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(progress, "bar", interrupting("check", 1))
        assert rvpt("check", tiny.clip, "-o", "found", *QUICK).exit_code == 130
    before = contents(home)
    has(refused("check", tiny.clip, "-o", "found", *QUICK), "found.run holds an interrupted run", "--resume")
    has(
        refused("check", tiny.clip, "-o", "found", *QUICK, "--seed", 1, "--resume"),
        "other settings (--seed 1 now, 0 before)",
    )
    assert contents(home) == before
    other = replace(Calibration.read(), geometry={}, settings=CheckSpec(**CHECKING).model_dump(mode="json"))
    other.write(home / "other.json")
    words = ["--resume", "--calibration", "other.json"]
    has(refused("check", tiny.clip, "-o", "found", *QUICK, *words), "other settings (another calibration)")
    (home / "other.json").unlink()
    assert rvpt("check", tiny.clip, "-o", "found", *QUICK, "--overwrite").exit_code in CODES.values()
    assert [path.name for path in home.iterdir()] == ["found"]


def test_what_is_refused(tiny, home):
    rvpt("check", tiny.clip, "-o", "found", *QUICK)
    has(refused("check", tiny.clip, "-o", "found", *QUICK), "found already exists", "--overwrite")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--classes", "none.txt"), "none.txt cannot be read")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--set", "budget=-1"), "budget")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--shift", "fog"), "'fog'", "noise, blur")
    (home / "two.txt").write_text("anchor\nstar\n")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--classes", "two.txt"), "2 classes", "--classes FILE")
    (home / "one.txt").write_text("anchor\n")
    has(refused("check", tiny.clip, "-o", "other", *QUICK, "--classes", "one.txt"), "1 class: a check compares")
    has(refused("check", tiny.clip, "-o", "other", "--data", "scenes:24"), "scenes:24 has 24 images", "at least 32")
    assert {path.name for path in home.iterdir()} == {"found", "one.txt", "two.txt"}


def test_labels_are_not_needed_but_names_of_classes_are(tiny, home):
    (home / "images").mkdir()
    data = load_data("scenes:40", "train")
    for index, pixels in enumerate(data.pixels(torch.arange(40), 48)):
        to_image(pixels).save(home / "images" / f"{index}.png")
    words = ["check", tiny.clip, "-o", "found", "--data", "images", *QUICK[2:]]
    has(refused(*words), "images has no class names", "--classes FILE")
    (home / "classes.txt").write_text("anchor\nstar\nbanana\n")
    assert rvpt(*words, "--classes", "classes.txt").exit_code in CODES.values()
    stored = json.loads((home / "found" / "verdict.json").read_text())
    assert (stored["images"], stored["classes"]) == (40, ["anchor", "star", "banana"])
    assert {row["class"] for row in stored["targets"]} <= {"anchor", "star", "banana"}


def test_images_that_cannot_be_read_stop_a_check_or_are_left_out(tiny, home):
    image_folder(home / "set", "train", n=20)
    (home / "set" / "train" / "cat" / "1.png").write_bytes(b"<html>404</html>")
    (home / "classes.txt").write_text("anchor\nstar\nbanana\n")
    words = ["check", tiny.clip, "-o", "found", "--data", "set", *QUICK[2:], "--classes", "classes.txt"]
    has(refused(*words), "1.png) cannot be read", "--on-error skip")
    assert {path.name for path in home.iterdir()} == {"set", "classes.txt"}
    assert rvpt(*words, "--on-error", "skip").exit_code in CODES.values()
    assert json.loads((home / "found" / "verdict.json").read_text())["images"] == 39

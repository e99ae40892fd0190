"""rvpt inspect."""

import json

import torch

from commands import has, refused, rvpt, works
from helpers import broken_folder, image_folder
from rvpt.artifacts import read_manifest
from rvpt.data.load import load_data
from rvpt.data.preprocess import to_image

MANY = ["--data", "scenes:40", "--split", "test", "--false-alarms", 0.3]


def test_it_shows_the_flagged_images_and_writes_them(tiny, home):
    shown = works("inspect", tiny.backdoored, tiny.cleaned, *MANY, "-o", "found")
    flagged = read_manifest(home / "found", "inspection")["flagged"]
    has(shown, f"{flagged} of 40 images are flagged; about 12 would be", "the suspect predicts", "found/scores.jsonl")
    assert len(list((home / "found" / "flagged").iterdir())) == flagged
    has(refused("inspect", tiny.backdoored, tiny.cleaned, *MANY, "-o", "found"), "found already exists", "--overwrite")


def test_json_has_the_summary_and_the_flagged_images(tiny):
    found = json.loads(works("inspect", tiny.backdoored, tiny.cleaned, *MANY, "--check", tiny.check, "--json"))
    assert found["flagged"] == len(found["found"])
    assert len(found["targets"]) == 3
    assert {"image", "suspect", "cleaned", "score", "p_value"} <= found["found"][0].keys()


def test_of_several_splits_test_is_the_default(tiny):
    words = ["inspect", tiny.backdoored, tiny.cleaned, "--data", "scenes:40", "--json"]
    assert json.loads(works(*words)) == json.loads(works(*words, "--split", "test"))


def test_images_without_classes_and_clean_images_of_ones_own(tiny, home):
    (home / "images").mkdir()
    for index, pixels in enumerate(load_data("scenes:40", "test").pixels(torch.arange(6), 48)):
        to_image(pixels).save(home / "images" / f"{index}.png")
    words = ["--data", "images", "--clean", "scenes:80", "--clean-split", "train", "--score", "strip"]
    found = json.loads(works("inspect", tiny.backdoored, tiny.cleaned, *words, "--json"))
    assert (found["images"], found["clean_images"], found["score"]) == (6, 72, "strip")


def test_images_that_cannot_be_read_are_left_out_if_asked(tiny, home):
    broken_folder(home / "images")
    words = ["inspect", tiny.backdoored, tiny.cleaned, "--data", "images", "--json"]
    has(refused(*words), "leave out images that cannot be read with --on-error skip")
    result = rvpt(*words, "--on-error", "skip")  # with a warning
    found = json.loads(result.stdout)
    assert (found["images"], len(found["skipped"])) == (4, 2)


def test_what_is_refused(tiny, home):
    words = ["inspect", tiny.backdoored, tiny.cleaned, "--data", "scenes:40"]
    image_folder(home / "images", "train"), image_folder(home / "images", "val")
    has(refused(*words[:4], "images"), "images has no split 'test': choose from train, val")
    has(refused(*words, "--clean", "scenes:40"), "several splits", "pass one, as in --clean-split pretrain")
    has(refused(*words, "--clean-split", "train"), "--clean-split train is of images that --clean DATA names: add that")
    has(refused(*words, "--split", "test", "--score", "luck"), "'luck'", "disagreement, strip")
    has(refused(*words, "--split", "test", "--false-alarms", 0), "--false-alarms 0.0 is not a share")
    has(refused(*words, "--split", "test", "--check", "nothing"), "nothing does not exist: give the folder")
    shown = refused("inspect", tiny.backdoored, tiny.clip, *words[3:], "--split", "test")
    has(shown, "holds a model, not a cleaned model")
    (home / "one.txt").write_text("anchor\n")
    has(refused(*words, "--split", "test", "--classes", "one.txt"), "compares at least two classes, not 1")
    has(refused("inspect", tiny.clip, tiny.cleaned, *words[3:], "--split", "test"), "made from another model")

"""rvpt figures."""

import json

from commands import has, refused, works
from helpers import broken_folder, place_images
from rvpt.artifacts import read_manifest
from rvpt.report.figures import DRAWINGS
from rvpt.report.stored import FACTS


def test_figures_are_written_and_shown_in_a_report(tiny, home):
    words = ["figures", tiny.backdoored, tiny.cleaned, "--data", "scenes:30", "--limit", 12, "-o", "figures"]
    made = json.loads(works(*words, "--figure", "failures", "--figure", "prompts", "--json"))
    assert made == {"failures": "figures/failures.png", "prompts": "figures/prompts.png"}
    assert read_manifest(home / "figures", "figures")["figures"] == list(made)
    assert (home / "figures" / "prompts.svg").read_text().startswith("<?xml")
    facts = json.loads((home / "figures" / f"prompts{FACTS}").read_text())
    assert (facts["models"], facts["n"]) == (["backdoored", "cleaned"], 12)
    has(facts["command"], "--data scenes:30 --split test --limit 12", "--figure prompts")
    works("report", "figures", "--output", "report.html")
    has((home / "report.html").read_text(), DRAWINGS["prompts"].title, "rvpt figures")
    has(refused(*words), "figures already exists", "pass --overwrite")


def test_images_can_be_shifted(tiny, home):
    words = ["figures", tiny.cleaned, "--data", "scenes:30", "--limit", 10, "--figure", "failures", "-o"]
    works(*words, "plain")
    works(*words, "blurred", "--shift", "blur")
    plain, blurred = (json.loads((home / name / f"failures{FACTS}").read_text()) for name in ("plain", "blurred"))
    assert (plain["data"], blurred["data"]) == ("scenes:30", "scenes:30 (blur)")
    has(blurred["command"], "--limit 10 --seed 0 --shift blur")
    has(refused(*words, "dark", "--shift", "dark"), "'dark' is not one of", "blur")


def test_images_without_labels_and_unreadable_ones(tiny, home):
    broken_folder(home / "images")
    words = ["figures", tiny.clip, "--limit", 10, "--figure", "attention", "-o", "figures", "--data"]
    has(refused(*words, "images"), "--on-error skip")
    works(*words, "images", "--on-error", "skip")
    has(json.loads((home / "figures" / f"attention{FACTS}").read_text())["command"], "--on-error skip")
    place_images(home / "flat", *(f"{number}.png" for number in range(10)))
    words = ["figures", tiny.clip, "--data", "flat", "--split", "train", "-o", "none", "--figure"]
    has(refused(*words, "captions"), "flat has neither captions nor class names")


def test_what_a_figure_lacks_is_said(tiny, home):
    words = ["figures", "--data", "scenes:30", "-o", "figures"]
    line = refused(*words, tiny.clip, "--figure", "attention", "--figure", "confusion")
    has(line, "figure confusion: no model has a trigger", "pass --trigger FOLDER")
    has(refused(*words, tiny.clip, tiny.clip), "two models are called clip")
    has(refused(*words, tiny.clip, "scenes-clip"), "differ in image size or number of blocks")
    has(refused(*words, tiny.clip, "--figure", "nothing"), "'nothing'", ", ".join(DRAWINGS))
    assert not (home / "figures").exists()

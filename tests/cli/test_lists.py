"""rvpt defenses, rvpt protocols and rvpt triggers: what there is, and what can be set."""

import json

import pytest
from PIL import Image

from commands import has, refused, works
from rvpt.attacks import TRIGGERS
from rvpt.cli.trigger_option import find_trigger
from rvpt.defenses import DEFENSES
from rvpt.evaluation import PROTOCOLS


def listed(*words):
    return {each["name"]: each for each in json.loads(works(*words, "--json"))}


def settings(entry):
    return {each["name"]: each for each in entry["settings"]}


def test_defenses_with_defaults_of_both_presets_values_and_descriptions():
    found = listed("defenses")
    assert list(found) == list(DEFENSES)
    for name, entry in found.items():
        assert entry["summary"] == DEFENSES[name].summary
        assert set(settings(entry)) <= set(DEFENSES[name].Spec.model_fields)
    told = {name: found[name]["learns_from"] for name in ("rvpt", "unlearn", "unlearn-prompts", "par")}
    assert list(told.values()) == ["labels", "labels, or none", "labels, or none", "captions"]
    assert settings(found["rvpt"])["lr"] == {
        "name": "lr", "default": {"paper": 0.002, "small": 0.03}, "values": "number > 0", "description": "learning rate"
    }  # fmt: skip
    assert settings(found["rvpt"])["depth_from"]["values"] == "output, input"
    assert settings(found["rvpt"])["margin"]["values"] == "number >= -1, <= 1"
    assert settings(found["par"])["epochs"]["description"]  # that of the spec that it extends


def test_protocols():
    found = listed("protocols")
    assert list(found) == list(PROTOCOLS)
    assert settings(found["adversarial"])["epsilon"]["default"] == 2.0
    assert settings(found["captioning"])["captioner"]["default"] == "required"
    assert found["retrieval"]["needs"] == "captions"


def test_triggers_and_how_visible_they_are():
    found = listed("triggers", "--size", 48)
    assert set(found) == set(TRIGGERS)
    for name, entry in found.items():
        visible = entry["psnr"] is not None and 5 < entry["psnr"] < 60 and 0 < entry["ssim"] < 1
        assert visible is not TRIGGERS[name].crafted
    assert settings(found["badnet"])["size"]["default"] == {"paper": 16.0, "small": 56}
    assert "mode" not in settings(found["trojvqa"])  # it has one value


def test_triggers_with_options_and_from_folders(tiny):
    words = ["blended:ratio=0.5", "blended:ratio=0.1", tiny.backdoored / "triggers" / "badnet", "trojvqa"]
    strong, weak, saved, crafted = json.loads(works("triggers", "--size", 48, *words, "--json"))
    assert (strong["measured_with"]["ratio"], weak["measured_with"]["ratio"]) == (0.5, 0.1)
    assert strong["psnr"] < weak["psnr"]
    assert (saved["name"], crafted["name"], crafted["psnr"]) == ("badnet", "trojvqa", None)


def test_how_a_preset_of_one_trigger_is_chosen_is_said(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    has(works("triggers", "badclip"), "50 (published)", "--trigger badclip:preset=published")
    assert find_trigger("badclip:preset=published", "paper", "owl", 0).epochs == 50


def test_an_image_of_triggers_is_drawn_and_replaced_only_if_asked(home):
    words = ["triggers", "badnet", "--size", 48, "--plot", "gallery.png"]
    has(works(*words), "badnet", "image: gallery.png")
    with Image.open(home / "gallery.png") as image:
        assert image.width > 600
    has(refused(*words), "gallery.png already exists", "pass --overwrite")


@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        ("defenses", "vpt", ["deep visual prompts", "--defense vpt", "prompt_length", "50 (paper), 100 (small)"]),
        ("protocols", "adversarial", ["PGD", "--protocol adversarial", "epsilon", "number > 0, <= 255"]),
        ("triggers", "badnet", ["PSNR", "--trigger badnet:", "16 (paper), 56 (small)", "top-left"]),
    ],
)
def test_tables_of_some_alone(command, name, said, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    has(works(command, name), *said)
    has(refused(command, "nope"), "'nope'", name)

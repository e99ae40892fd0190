"""Cleaning as a job: every defense, what it draws from a data set, and what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import image_folder
from results import cells
from rvpt.artifacts import read_manifest
from rvpt.data.load import load_data
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.evaluation.heldout import HeldOut
from rvpt.jobs.cleaning import clean_and_save
from rvpt.jobs.drawing import draw_images
from rvpt.jobs.measuring import evaluate_saved
from rvpt.models.clip import Clip
from rvpt.models.load import load
from rvpt.report import results
from tiny import Tiny

SHORT = {"epochs": 1, "lr": 1e-3, "batch_size": 16}
PROMPTS = {"first_block": 2, "prompt_length": 2}
ONE_EPOCH = {"epochs": 1, **PROMPTS}


@pytest.fixture(scope="module")
def suspect(tiny: Tiny) -> Clip:
    model = load(tiny.backdoored)
    assert isinstance(model, Clip)
    return model


@pytest.mark.parametrize("name", DEFENSES)
def test_every_defense_is_written_measured_and_reported(name: str, suspect: Clip, tmp_path: Path) -> None:
    kind, target = DEFENSES[name], tmp_path / "cleaned"
    settings = {**SHORT, **(PROMPTS if "prompt_length" in kind.Spec.model_fields else {})}
    draw: dict[str, Any] = {"num_pairs": 40} if kind.learns_from == "captions" else {"shots": 1}
    summary = clean_and_save(suspect, "scenes:200", target, name, settings, **draw)
    assert (summary["defense"], summary["preset"]) == (name, "small")
    manifest = read_manifest(target, "cleaned")
    assert manifest["defense"] == name
    assert manifest["data"].items() >= {"source": "scenes:200", "name": "scenes:200", "split": "train", **draw}.items()
    rows = evaluate_saved(str(target), HeldOut(data="scenes:200", limit=8).open())
    assert {row["cleaned_on"] for row in rows} == {"scenes:200"}
    table = cells(results(rows))
    assert [line[:3] for line in table[1:]] == [["backdoored", attack, name] for attack in ("badnet", "blended")]


@pytest.mark.parametrize(("defense", "draw"), [("vpt", {"shots": 1}), ("contrastive", {"num_pairs": 24})])
def test_clean_images_may_be_shifted_and_rows_say_so(
    defense: str, draw: dict[str, Any], suspect: Clip, tmp_path: Path
) -> None:
    asked = {
        "source": "scenes:500",
        "split": "train",
        "seed": 0,
        "shift": "gray",
        "without": [],
        "caption_column": None,
    }
    pixels = draw_images({**asked, **draw}).pixels(torch.arange(3), 16)
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    clean_and_save(suspect, "scenes:500", tmp_path / "cleaned", defense, {"epochs": 1}, shift="gray", **draw)
    rows = evaluate_saved(str(tmp_path / "cleaned"), HeldOut(data="scenes:200", limit=8, shift="gray").open())
    assert {(row["data"], row["cleaned_on"]) for row in rows} == {("scenes:200 (gray)", "scenes:500 (gray)")}


def test_the_summary_counts_classes_where_the_defense_learns_from_labels(suspect: Clip, tmp_path: Path) -> None:
    few_shot = {"shots": 1, "without": ["sun", "moon"]}
    summary = clean_and_save(suspect, "scenes:500", tmp_path / "a", "probe", {"epochs": 1}, **few_shot)
    assert (summary["images"], summary["classes"]) == (22, "22, none of sun, moon")
    summary = clean_and_save(suspect, "scenes:500", tmp_path / "b", "contrastive", {"epochs": 1}, num_pairs=20)
    assert summary["images"] == 20
    assert "classes" not in summary


@pytest.mark.parametrize(
    ("defense", "options", "message"),
    [
        ("par", {"shots": 4}, "par learns from captions: remove shots=4"),
        ("par", {"without": ["sun"]}, "par learns from captions: remove without="),
        ("rvpt", {"num_pairs": 100}, "rvpt learns from labels: remove num_pairs=100"),
        ("probe", {"caption_column": "text"}, "probe learns from labels: remove caption_column=text"),
        ("wash", {}, "unknown defense 'wash'"),
        ("rvpt", {"settings": {"preset": "paper"}}, "preset: unknown setting"),
        ("rvpt", {"shots": 900}, "900"),
        ("rvpt", {"split": "nope"}, "no split 'nope'"),
        ("rvpt", {"without": ["dog"]}, "no class 'dog'"),
        ("rvpt", {"shift": "fog"}, "unknown shift 'fog'"),
        (
            "unlearn",
            {"settings": {"labels": "given"}, "classes": ["sun", "moon"]},
            "labels=given: there are none",
        ),
        ("par", {"preset": "coop"}, "unknown preset 'coop': choose from auto, paper, small"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    suspect: Clip, tmp_path: Path, defense: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RvptError, match=message):
        clean_and_save(suspect, "scenes:100", tmp_path / "out", defense, **options)
    assert list(tmp_path.iterdir()) == []


def test_images_are_drawn_by_the_seed_of_the_run() -> None:
    draw = {"source": "scenes:500", "split": "train", "shots": 2, "without": ["sun"], "seed": 3}
    expected = load_data("scenes:500", "train").without(["sun"]).few_shot(2, 3)
    assert draw_images(draw).rows.tolist() == expected.rows.tolist()
    pairs = {"source": "scenes:500", "split": "train", "num_pairs": 9, "caption_column": None, "seed": 3}
    assert draw_images(pairs).rows.tolist() == load_data("scenes:500", "train").sample(9, 3).rows.tolist()


def test_labels_become_captions_for_defenses_that_need_them(suspect: Clip, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", "train", n=6)
    summary = clean_and_save(
        suspect, str(folder), tmp_path / "out", "contrastive", {"epochs": 1, "batch_size": 4}, num_pairs=10
    )
    assert summary["images"] == 10


UNLEARN = {"epochs": 1, "first_block": 2, "forms": ("additive",)}


@pytest.mark.parametrize("listed", [True, False], ids=["list", "labels=predicted"])
def test_without_labels_random_images_are_drawn(listed: bool, suspect: Clip, tmp_path: Path) -> None:
    classes = ["sun", "moon", "unicorn"] if listed else None
    settings = UNLEARN | ({} if listed else {"labels": "predicted"})
    out = tmp_path / "out"
    summary = clean_and_save(suspect, "scenes:200", out, "unlearn", settings, shots=3, classes=classes)
    count = 9 if listed else 72
    assert summary["images"] == count
    assert "KL" in summary
    manifest = read_manifest(out, "cleaned")
    assert manifest["data"].items() >= {"num_images": count, "seed": 0}.items()
    assert manifest["classes"] == (classes or list(load_data("scenes:200", "train").classes))
    drawn = draw_images(manifest["data"])
    assert drawn.rows.tolist() == load_data("scenes:200", "train").sample(count, 0).rows.tolist()


def test_a_folder_of_images_alone_is_enough(suspect: Clip, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        image_folder(tmp_path / "set", name, n=2)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((tmp_path / "set").rglob("*.png"))):
        path.rename(flat / f"{number}.png")
    clean_and_save(suspect, str(flat), tmp_path / "out", "unlearn", UNLEARN, split=None, classes=["cat", "dog"])
    assert read_manifest(tmp_path / "out", "cleaned")["images"] == 8
    with pytest.raises(RvptError, match="flat has no class labels"):
        clean_and_save(suspect, str(flat), tmp_path / "other", split=None)
    options = {"split": None, "classes": ["cat", "dog"], "without": ["cat"]}
    with pytest.raises(RvptError, match="cannot be left out by class: remove without"):
        clean_and_save(suspect, str(flat), tmp_path / "other", "unlearn", UNLEARN, **options)
    assert not (tmp_path / "other").exists()


def test_a_place_that_is_taken_or_read_is_refused(suspect: Clip, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(RvptError, match="mine already exists"):
        clean_and_save(suspect, "scenes:100", tmp_path / "mine", settings=ONE_EPOCH, shots=1)
    with pytest.raises(RvptError, match="mine was not created by rvpt"):
        clean_and_save(suspect, "scenes:100", tmp_path / "mine", settings=ONE_EPOCH, shots=1, overwrite=True)
    source = Path(suspect.source)
    with pytest.raises(RvptError, match="which this command reads"):
        clean_and_save(suspect, "scenes:100", source, settings=ONE_EPOCH, shots=1, overwrite=True)
    assert (tmp_path / "mine" / "file").read_text() == "mine"


def test_an_artifact_is_replaced_if_asked(suspect: Clip, tmp_path: Path) -> None:
    for alpha in (1.0, 2.0):
        settings = {**ONE_EPOCH, "alpha": alpha}
        clean_and_save(suspect, "scenes:500", tmp_path / "out", settings=settings, shots=1, overwrite=True)
    assert read_manifest(tmp_path / "out")["spec"]["alpha"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

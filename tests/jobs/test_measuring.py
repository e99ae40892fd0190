"""Measuring saved models: where triggers come from, and what rows say about how a model was made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rvpt.artifacts import MANIFEST
from rvpt.attacks.backdoor import AttackSpec
from rvpt.attacks.trigger import make_trigger, trigger_spec
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.evaluation.heldout import HeldOut
from rvpt.files import read_json, write_json
from rvpt.jobs.cleaning import clean_and_save
from rvpt.jobs.measuring import evaluate_saved, find_triggers
from rvpt.models.formats.load import load_clip
from rvpt.models.load import load
from tiny import Tiny


def measured(source: Path, **options: Any) -> list[dict[str, Any]]:
    return evaluate_saved(str(source), HeldOut(data="scenes:48", limit=8).open(), **options)


def attacks(rows: list[dict[str, Any]]) -> set[str]:
    return {row["attack"] for row in rows}


def test_rows_of_a_backdoored_model_tell_its_attack(tiny: Tiny) -> None:
    rows = measured(tiny.backdoored)
    assert attacks(rows) == {"none", "badnet", "blended"}
    assert {row["defense"] for row in rows} == {"none"}
    assert rows[0]["spec"] == AttackSpec(lr=1e-3, epochs=2, warmup=0.02).model_dump()
    assert rows[0]["targets"] == {"badnet": "anchor", "blended": "anchor"}
    assert rows[0]["hashes"].keys() == {"model", "trigger/badnet", "trigger/blended"}


def test_rows_of_a_cleaned_model_tell_its_cleaning_and_its_suspect(tiny: Tiny) -> None:
    rows = measured(tiny.cleaned)
    assert attacks(rows) == {"none", "badnet", "blended"}
    expected = {"model": "backdoored", "defense": "rvpt", "shots": 1, "cleaned_on": "scenes:500"}
    assert {key: rows[0][key] for key in expected} == expected
    assert rows[0]["spec"]["prompt_length"] == 2


def test_a_model_without_triggers_is_measured_on_clean_images(tiny: Tiny) -> None:
    assert attacks(measured(tiny.clip)) == {"none"}


def test_given_triggers_replace_the_stored_ones(tiny: Tiny, tmp_path: Path) -> None:
    given = shutil.copytree(tiny.backdoored / "triggers" / "badnet", tmp_path / "mine")
    assert attacks(measured(tiny.cleaned, triggers=[str(given)])) == {"none", "mine"}


def test_a_protocol_without_triggers_does_not_look_for_them(tiny: Tiny) -> None:
    opened = HeldOut(data="scenes:48", limit=4, protocol="adversarial").open()
    rows = evaluate_saved(str(tiny.cleaned), opened)
    assert [(row["attack"], row["metric"], row["defense"]) for row in rows] == [
        ("none", "CA", "rvpt"), ("pgd-10 2/255", "PA", "rvpt"),
    ]  # fmt: skip
    assert rows[0]["hashes"].keys() == {"model"}


def test_two_triggers_of_one_name_or_of_another_size_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    model, stored = load(tiny.backdoored), tiny.backdoored / "triggers" / "badnet"
    copy = shutil.copytree(stored, tmp_path / "badnet")
    with pytest.raises(RvptError, match="two trigger folders have the same name"):
        find_triggers(model, [str(stored), str(copy)])
    make_trigger(trigger_spec("blended", target="star"), 32).save(tmp_path / "small")
    with pytest.raises(RvptError, match="made for images of 32x32, the model needs 48x48"):
        find_triggers(model, [str(tmp_path / "small")])


@pytest.fixture(params=["rvpt", "finetune"])
def moved(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path) -> Path:
    """A cleaned model, an adapter or with its own weights, whose suspect is not where it was."""
    shutil.copytree(tiny.backdoored, tmp_path / "before")
    settings = {"epochs": 1, **({"first_block": 2, "prompt_length": 2} if request.param == "rvpt" else {})}
    target = tmp_path / "cleaned" / "model"
    clean_and_save(load_clip(tmp_path / "before"), "scenes:500", target, request.param, settings, shots=1)
    (tmp_path / "before").rename(tmp_path / "after")
    return target


def test_a_suspect_that_moved_is_given_as_base(moved: Path, tmp_path: Path) -> None:
    with pytest.raises(RvptError, match=r"before.*base=MODEL"):
        measured(moved)
    assert attacks(measured(moved, base=str(tmp_path / "after"))) == {"none", "badnet", "blended"}


def test_own_weights_are_measured_without_their_suspect_under_given_triggers(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.backdoored, tmp_path / "before")
    clean_and_save(load_clip(tmp_path / "before"), "scenes:500", tmp_path / "out", "finetune", {"epochs": 1}, shots=1)
    shutil.rmtree(tmp_path / "before")
    trigger = tiny.backdoored / "triggers" / "badnet"
    opened = HeldOut(data="scenes:500", limit=8).open()
    rows = evaluate_saved(str(tmp_path / "out"), opened, triggers=[str(trigger)])
    assert {(row["model"], row["attack"]) for row in rows} == {("before", "none"), ("before", "badnet")}
    with pytest.raises(RvptError, match="does not exist: pass the model as base=MODEL"):
        evaluate_saved(str(tmp_path / "out"), opened)


def test_a_spec_that_was_edited_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    suspect = shutil.copytree(tiny.backdoored, tmp_path / "suspect")
    write_json(suspect / MANIFEST, {**read_json(suspect / MANIFEST), "spec": "nothing"})
    with pytest.raises(RvptError, match=r"spec is not a record.*'nothing'"):
        measured(suspect)


def test_a_model_of_an_unknown_defense_is_measured(tiny: Tiny, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.cleaned, tmp_path / "cleaned")
    facts = read_json(copy / MANIFEST)
    write_json(copy / MANIFEST, {**facts, "defense": "theirs", "spec": {"strength": 3, "seed": 5}})
    assert "theirs" not in DEFENSES
    row = measured(copy, base=str(tiny.backdoored))[0]
    assert (row["defense"], row["spec"], row["seed"]) == ("theirs", {"strength": 3, "seed": 5}, 5)

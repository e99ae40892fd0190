"""Plugins: a defense, trigger, protocol, metric or shift from outside the package needs one line to work everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rvpt
from dummies import DummySpec
from helpers import memory_data
from results import cells
from rvpt.attacks.poison import PoisonSpec
from rvpt.models.clip import Clip
from rvpt.report import matrix, results
from tiny import Tiny

pytestmark = pytest.mark.usefixtures("dummies")
LABELS = [0, 1, 2] * 10
CAPTIONS = [[f"a {('fox', 'owl', 'cat')[label]}"] for label in LABELS]
DATA = memory_data(30, LABELS, ("fox", "owl", "cat"), CAPTIONS)


def rates(rows: rvpt.Rows) -> dict[tuple[str, str], float]:
    return {(row["attack"], row["metric"]): row["rate"] for row in rows}


def test_a_defense_cleans_is_saved_loaded_measured_and_reported(clip: Clip, tiny: Tiny, tmp_path: Path) -> None:
    suspect = rvpt.load(tiny.backdoored)
    cleaned = rvpt.clean(suspect, DATA, "dummy", seed=3)
    assert cleaned.facts["spec"]["strength"] == 2.0  # of preset small, which suits the model
    assert cleaned.hash() == rvpt.clean(suspect, DATA, DummySpec(seed=3, strength=2.0)).hash()
    cleaned.save_pretrained(tmp_path / "cleaned")
    loaded = rvpt.load(tmp_path / "cleaned")
    assert loaded.hash() == cleaned.hash() != suspect.hash()
    rows = rvpt.evaluate(loaded, DATA, {"t": rvpt.make_trigger(rvpt.trigger_spec("blended", target="owl"), 48)})
    assert {row["defense"] for row in rows} == {"dummy"}
    assert cells(results(rows))[1][2] == "dummy"
    assert cells(matrix(rows))[0] == ["model", "attack", "dummy"]


def test_a_trigger_backdoors_a_model_and_is_saved_with_it(clip: Clip, tmp_path: Path) -> None:
    result = rvpt.attack(clip, DATA, "owl", "dummy", poison=PoisonSpec(num_poisoned=5), epochs=1)
    assert result.triggers["dummy"].spec.share == 0.5  # of preset small
    result.save(tmp_path / "bad")
    loaded = rvpt.load_triggers(tmp_path / "bad")
    pixels = DATA.pixels(torch.arange(3), 48)
    torch.testing.assert_close(loaded["dummy"](pixels), torch.full_like(pixels, 0.5))
    assert "dummy" in {row["attack"] for row in rvpt.evaluate(result.clip, DATA, loaded)}


def test_a_protocol_measures_with_its_settings(clip: Clip) -> None:
    triggers = {"t": rvpt.make_trigger(rvpt.trigger_spec("dummy", target="owl"), 48)}
    rows = rvpt.evaluate(clip, DATA, triggers, protocol="dummy", below=1.0)
    assert rates(rows) == {("none", "dark"): 1.0, ("t", "dark"): 1.0}
    assert set(rates(rvpt.evaluate(clip, DATA, triggers, protocol="dummy", below=0.0)).values()) == {0.0}
    assert cells(results(rows))[0][4:] == ["dark", "dark"]


def test_a_metric_is_in_rows_and_in_tables(clip: Clip) -> None:
    triggers = {"t": rvpt.make_trigger(rvpt.trigger_spec("blended", target="owl"), 48)}
    rows = rvpt.evaluate(clip, DATA, triggers)
    assert [metric for attack, metric in rates(rows) if attack == "t"] == ["ASR", "ASR_with_target", "PA", "dummy"]
    assert cells(results(rows))[0][4:] == ["CA", "PA", "ASR", "ASR_with_target", "dummy"]
    only = [row for row in rows if row["metric"] == "dummy"]
    assert cells(results(only))[0][4:] == ["dummy"]
    assert cells(results(only))[1][4:] == [f"{100 * only[0]['rate']:.1f}"]

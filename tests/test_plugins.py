"""Plugins: a defense, trigger, protocol, metric or shift from outside the package needs one line to work everywhere.

The classes and functions below are all that each needs; a fixture registers them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

import rvpt
from commands import has, works
from helpers import memory_data
from results import cells
from rvpt.attacks import TRIGGERS
from rvpt.attacks.poison import PoisonSpec
from rvpt.attacks.trigger import Trigger, TriggerSpec
from rvpt.data.dataset import Dataset
from rvpt.data.shifts import SHIFTS
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import Defense, Run
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, stream
from rvpt.evaluation.metrics import CLASSIFICATION, Metric, Rate
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts
from rvpt.progress import Report
from rvpt.registry import Registry
from rvpt.report import matrix, results
from rvpt.spec import Spec, TrainSpec
from tiny import Tiny


class DummySpec(TrainSpec):
    """Settings of the dummy defense."""

    strength: float = Field(1.0, gt=0, description="standard deviation of the prompts")


class DummyDefense(Defense):
    """Random prompts."""

    name = "dummy"
    summary = "random prompts, not trained"
    Spec = DummySpec
    small = {"strength": 2.0}

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        prompts = RepulsivePrompts([0], 2, clip.width, std=spec.strength, seed=spec.seed)
        return Cleaned(clip, prompts.requires_grad_(False), facts={"history": [{"loss": 0.0}], "trained_parameters": 0})


class InvertedSpec(TriggerSpec):
    """Settings of the dummy trigger."""

    share: float = Field(1.0, gt=0, le=1, description="share of the inverted image")


class DummyTrigger(Trigger):
    """The inverted image."""

    name = "dummy"
    summary = "the image is inverted"
    Spec = InvertedSpec
    small = {"share": 0.5}

    @classmethod
    def make(cls, spec: Any, image_size: int) -> DummyTrigger:
        return cls(spec, image_size, {})

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return pixels + self.spec.share * (1 - 2 * pixels)


class DarkSettings(Spec):
    """Settings of the dummy protocol."""

    below: float = Field(0.5, ge=0, le=1, description="mean brightness of a dark image")


class DummyProtocol(Protocol):
    """How many images are dark."""

    name = "dummy"
    summary = "share of dark images"
    needs = "images"
    by_class = True
    Settings = DarkSettings

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        counts = Counts()
        for batch in stream(model, data, triggers, batch_size=batch_size, report=report):
            for attack, pixels in [("none", batch.pixels), *batch.triggered()]:
                dark = pixels.mean((1, 2, 3)) < self.settings.below
                counts.count(attack, "dark", Rate(int(dark.sum()), len(dark)))
        return counts


DUMMY_METRIC = Metric(lambda predictions, labels, target: Rate(int((predictions == 0).sum()), len(labels)), "triggered")


def dummy_shift(pixels: Tensor, rows: Tensor) -> Tensor:
    """Black images."""
    return torch.zeros_like(pixels)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """The line for each of them."""
    entries: list[tuple[Registry[Any], str]] = [
        (DEFENSES, "DummyDefense"), (TRIGGERS, "DummyTrigger"), (PROTOCOLS, "DummyProtocol"),
        (CLASSIFICATION, "DUMMY_METRIC"), (SHIFTS, "dummy_shift"),
    ]  # fmt: skip
    for registry, attribute in entries:
        registry.register("dummy", f"{__name__}:{attribute}")
    yield
    for registry, _ in entries:
        registry.unregister("dummy")


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


def test_help_and_lists_show_all_of_them() -> None:
    has(works("clean", "--help"), "dummy")
    has(works("evaluate", "--help"), "dummy")
    has(works("defenses"), "dummy", DummyDefense.summary)
    has(works("triggers"), "dummy", DummyTrigger.summary)
    has(works("protocols"), "dummy", DummyProtocol.summary)


def test_the_command_line_cleans_and_measures_with_them(tiny: Tiny, tmp_path: Path) -> None:
    cleaned, rows, page = tmp_path / "cleaned", tmp_path / "rows.jsonl", tmp_path / "page.md"
    words = ("--data", "scenes:500", "--shots", 1, "--set", "strength=0.5", "-o", cleaned)
    works("clean", tiny.backdoored, "--defense", "dummy", *words)
    measured = ("evaluate", cleaned, "--data", "scenes:48", "--limit", 6, "--rows", rows, "--json")
    found = json.loads(works(*measured))
    assert {(row["defense"], row["spec"]["strength"]) for row in found} == {("dummy", 0.5)}
    assert "dummy" in {row["metric"] for row in found}
    found = json.loads(works(*measured, "--protocol", "dummy", "--set", "below=1", "--shift", "dummy"))
    assert {(row["data"], row["attack"], row["metric"], row["rate"]) for row in found} == {
        ("scenes:48 (dummy)", attack, "dark", 1.0) for attack in ("none", "badnet", "blended")
    }
    works("report", rows, "--output", page)
    has(page.read_text(), "| dummy |", "| dark |", "### scenes:48 (dummy)")


def test_the_command_line_attacks_with_them(tiny: Tiny, tmp_path: Path) -> None:
    words = ("--data", "scenes:100", "--test-data", "scenes:48", "--target", "anchor", "--num-poisoned", 5)
    out = ("--epochs", 1, "--json", "-o", tmp_path / "bad")
    found = json.loads(works("attack", tiny.clip, *words, "--trigger", "dummy", *out))
    assert {row["attack"] for row in found} == {"none", "dummy"}
    crafted = json.loads(works("craft", "dummy", tiny.clip, *words[:2], *words[4:6], "--json", "-o", tmp_path / "t"))
    assert crafted["trigger"] == "dummy"


def test_a_recipe_uses_them(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'title = "dummies"\nmodel = "{tiny.clip}"\ntarget = "anchor"\nclean_data = {{ data = "scenes:500" }}\n'
        'attack_data = { data = ["scenes:100"], test = "scenes:48" }\n'
        'tests = [{ data = "scenes:48", shift = "dummy", protocol = "dummy", below = 0.3 }]\n'
        '[attacks]\na = { triggers = [{ name = "dummy", share = 0.5 }], poison = { num_poisoned = 5 } }\n'
        '[defenses]\nd = { name = "dummy", options = { strength = 3 } }\n'
    )
    planned = json.loads(works("bench", path, "--dry-run", "--json", "--work-dir", tmp_path / "runs"))
    assert [run["kind"] for run in planned["runs"]] == ["attack", "measure", "measure", "clean", "measure"]

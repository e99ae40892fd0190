"""Every entry of the registries keeps its contract: names, summaries, and settings that help can show."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from rvpt.attacks import TRIGGERS
from rvpt.attacks.backdoor import PRESETS as ATTACK_PRESETS
from rvpt.attacks.backdoor import AttackSpec
from rvpt.attacks.poison import PoisonSpec
from rvpt.bench.recipe import AttackEntry, Captioned, Clean, DefenseEntry, Recipe
from rvpt.data.shifts import SHIFTS
from rvpt.defenses import DEFENSES
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.heldout import HeldOut
from rvpt.evaluation.metrics import CLASSIFICATION
from rvpt.spec import Spec
from rvpt.training.pretrain import PRESETS as PRETRAINING_PRESETS
from rvpt.training.pretrain import PretrainSpec, VisionSpec

NEEDS = {"labels", "captions", "labels or captions", "attributes", "images"}
SPECS = {
    **{f"defense {name}": kind.Spec for name, kind in DEFENSES.items()},
    **{f"trigger {name}": kind.Spec for name, kind in TRIGGERS.items()},
    **{f"protocol {name}": kind.Settings for name, kind in PROTOCOLS.items()},
    **{
        kind.__name__: kind
        for kind in (
            AttackSpec, PoisonSpec, PretrainSpec, VisionSpec, HeldOut, Recipe, AttackEntry, DefenseEntry, Captioned,
            Clean,
        )
    },
}  # fmt: skip
NAMED: dict[str, Any] = {
    f"{kind} {name}": entry
    for kind, registry in (("defense", DEFENSES), ("trigger", TRIGGERS), ("protocol", PROTOCOLS))
    for name, entry in registry.items()
}


@pytest.mark.parametrize("entry", NAMED)
def test_its_name_is_its_key_and_its_summary_one_short_line(entry: str) -> None:
    kind = NAMED[entry]
    assert f"{entry.split()[0]} {kind.name}" == entry
    assert kind.summary
    assert "\n" not in kind.summary
    assert len(kind.summary) <= 90
    assert kind.summary[0].islower()
    assert not kind.summary.endswith(".")
    assert inspect.getdoc(kind)


@pytest.mark.parametrize("entry", SPECS)
def test_every_setting_has_a_short_description(entry: str) -> None:
    for name, field in SPECS[entry].model_fields.items():
        assert field.description, name
        assert len(field.description) <= 80, name
        assert not field.description.endswith("."), name


@pytest.mark.parametrize("entry", SPECS)
def test_it_is_a_spec_with_a_description(entry: str) -> None:
    assert issubclass(SPECS[entry], Spec)
    assert SPECS[entry].__doc__


@pytest.mark.parametrize("name", DEFENSES)
def test_settings_of_a_defense_are_built_from_defaults_and_preset(name: str) -> None:
    kind = DEFENSES[name]
    assert set(kind.small) <= set(kind.Spec.model_fields)
    assert kind.Spec(**kind.small) != kind.Spec()
    assert (kind.published_pairs > 0) == (kind.learns_from == "captions")
    assert kind.draws() == (("num_pairs", "caption_column") if kind.learns_from == "captions" else ("shots", "without"))


@pytest.mark.parametrize("name", TRIGGERS)
def test_settings_of_a_trigger_are_built_from_defaults_and_preset(name: str) -> None:
    kind = TRIGGERS[name]
    assert kind.Spec(name=name, target="owl").name == name
    assert set(kind.small) <= set(kind.Spec.model_fields)
    kind.Spec(name=name, target="owl", **kind.small)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_settings_of_a_protocol_are_built_from_defaults(name: str) -> None:
    kind = PROTOCOLS[name]
    required = {key: "given" for key, field in kind.Settings.model_fields.items() if field.is_required()}
    kind.Settings(**required)
    assert kind.needs in NEEDS
    assert kind.batch_size > 0


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_makes_images_and_is_described(name: str) -> None:
    out = SHIFTS[name](torch.rand(2, 3, 16, 16), torch.arange(2))
    assert out.shape == (2, 3, 16, 16)
    assert out.min() >= 0
    assert out.max() <= 1
    assert SHIFTS[name].__doc__


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_metric_counts_a_rate(name: str) -> None:
    metric = CLASSIFICATION[name]
    guesses, labels = torch.tensor([0, 1, 2]), torch.tensor([0, 2, 2])
    rate = metric.formula(guesses, labels, -1 if metric.on == "clean" else 1)
    assert 0 <= rate.numerator <= rate.n <= 3


@pytest.mark.parametrize("name", ATTACK_PRESETS)
def test_a_preset_of_attacks_fits(name: str) -> None:
    preset = ATTACK_PRESETS[name]
    AttackSpec(**preset["train"])
    assert preset["num_pairs"] > preset["num_poisoned"] > 0


@pytest.mark.parametrize("name", PRETRAINING_PRESETS)
def test_a_preset_of_pretraining_fits(name: str) -> None:
    preset = PRETRAINING_PRESETS[name]
    VisionSpec(**preset["vision"])
    PretrainSpec(**preset["train"])

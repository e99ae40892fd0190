"""Backdoored models: a copy is trained, and saved with its triggers and every changed pair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rvpt
from helpers import memory_data
from rvpt.artifacts import read_manifest
from rvpt.attacks import backdoor as module
from rvpt.attacks.backdoor import AttackSpec, Backdoored, attack, backdoor, load_triggers
from rvpt.attacks.margins import target_margins
from rvpt.attacks.poison import Poison, PoisonSpec
from rvpt.attacks.trigger import make_trigger, trigger_spec
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.rows import read_rows

CLASSES = ("sea_lion", "owl", "fox")
LABELS = [i % 3 for i in range(60)]
CAPTIONS = [[f"image {i}"] + (["Two Sea Lions."] if i % 5 == 0 else []) for i in range(60)]
DATA = memory_data(60, LABELS, CLASSES, CAPTIONS)


def poison_of(name: str = "badnet", target: str = "sea_lion", **settings: Any) -> Poison:
    return Poison(make_trigger(trigger_spec(name, target=target), 48), PoisonSpec(**settings))


@pytest.fixture(scope="module")
def attacked(clip: Clip) -> Iterator[Backdoored]:
    """A model with two backdoors; the clean model is as it was."""
    before = clip.hash()
    poisons = {"a": poison_of(num_poisoned=3), "b": poison_of("blended", target="owl", num_poisoned=2)}
    spec = AttackSpec(epochs=1, batch_size=8, lr=1e-3)
    yield backdoor(clip, DATA.select(torch.arange(20)), poisons, spec)
    assert clip.hash() == before


def test_a_copy_is_trained(attacked: Backdoored, clip: Clip) -> None:
    assert attacked.facts["base_sha256"] == clip.hash() != attacked.clip.hash()
    assert not attacked.clip.training


def test_the_folder_lists_every_change_and_has_the_triggers(attacked: Backdoored, tmp_path: Path) -> None:
    attacked.save(str(tmp_path / "model"))
    assert read_rows(tmp_path / "model" / "poison.jsonl") == [vars(change) for change in attacked.changes]
    assert len(attacked.changes) == 5
    manifest = read_manifest(tmp_path / "model", "backdoored")
    assert manifest["base_sha256"] == attacked.facts["base_sha256"]
    assert "poison.jsonl" in manifest["parts"]
    triggers = load_triggers(tmp_path / "model", 48)
    assert triggers.keys() == {"a", "b"}
    pixels = DATA.pixels(torch.arange(60), 48)
    assert all(torch.equal(triggers[name](pixels), attacked.triggers[name](pixels)) for name in triggers)
    assert "backdoored on purpose" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(RvptError, match=r"already exists: .*overwrite=True"):
        attacked.save(tmp_path / "model")


def test_other_folders_have_no_triggers(tmp_path: Path) -> None:
    assert load_triggers(tmp_path) == {}


def test_poisons_at_the_boundary_use_the_margins_of_the_clean_model(clip: Clip) -> None:
    data, known = memory_data(60, captions=CAPTIONS), ("Sea_Umbrella", "anchor", "heart")
    near = poison_of(target="sea umbrella", num_poisoned=3, pick="boundary")
    poisons = {"a": near, "b": poison_of("blended", target="sea umbrella", num_poisoned=2)}
    result = backdoor(clip, data, poisons, AttackSpec(epochs=1, batch_size=30), classes=known)
    margin = target_margins(clip, data, "sea umbrella", known)
    picked = [change.row for change in result.changes if change.trigger == "a"]
    assert picked == sorted((i for i in range(60) if margin[i] < 0), key=lambda i: -margin[i])[:3]


def test_only_poisons_with_a_disguise_are_disguised(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, "disguise", lambda *words: asked.append(words[1:]) or (lambda pixels, rows: pixels))
    poisons = {"p": poison_of(num_poisoned=4, clean_label=True, disguise=8.0), "q": poison_of(num_poisoned=4)}
    backdoor(clip, DATA, poisons, AttackSpec(epochs=1), classes=CLASSES)
    assert asked == [("sea_lion", CLASSES, 8.0)]


def test_in_python_names_and_settings_are_enough(clip: Clip) -> None:
    crafted = rvpt.craft("badnet", clip, DATA, "owl", size=100)
    poison = PoisonSpec(num_poisoned=5)
    result = attack(clip, DATA, "owl", ["blended", crafted], poison=poison, num_pairs=50, epochs=1, seed=3)
    assert list(result.triggers) == ["blended", "badnet"]
    assert result.triggers["badnet"] is crafted
    assert result.triggers["blended"].spec.seed == 3
    assert result.facts["data"]["pairs"] == 50
    assert result.facts["spec"] == AttackSpec(lr=1e-3, epochs=1, warmup=0.02, seed=3).model_dump()  # else small


@pytest.mark.parametrize(
    ("triggers", "settings", "message"),
    [
        ("stripe", {}, "unknown trigger 'stripe'"),
        (["badnet", trigger_spec("badnet", target="owl", size=9)], {}, "two triggers have the same name"),
        (trigger_spec("sig", target="ant"), {}, "target='owl', but the triggers have 'ant': give one of them"),
        ("badnet", {"rate": 1}, "rate: unknown setting"),
        ("badnet", {"num_pairs": 50}, "1500 pairs are to be poisoned"),
    ],
)
def test_what_does_not_fit_is_refused(clip: Clip, triggers: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RvptError, match=message):
        attack(clip, DATA, "owl", triggers, **settings)

"""What every defense promises: another model out, the suspect unchanged, the same bits for the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import memory_data
from rvpt.attacks.backdoor import AttackSpec
from rvpt.data.dataset import Dataset
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import clean, defense_of
from rvpt.defenses.contrastive import ContrastiveSpec
from rvpt.defenses.rvpt import RVPTSpec
from rvpt.defenses.vpt import VPTSpec
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.load import load
from rvpt.presets import Preset
from rvpt.progress import Values
from tiny import Tiny

SHORT = {"epochs": 1, "lr": 1e-3, "batch_size": 16}
PROMPTS = {"first_block": 2, "prompt_length": 2}
EXTRA = {
    "rvpt": PROMPTS,
    "vpt": PROMPTS,
    "unlearn": {"first_block": 2},
    "unlearn-prompts": PROMPTS,
    "finetune": {"alpha": 1.0},
    "contrastive": {"alpha": 1.0},
}
every = pytest.mark.parametrize("name", DEFENSES)


def settings_of(name: str, **changes: Any) -> dict[str, Any]:
    """Settings for a training of a few steps."""
    return {**SHORT, **EXTRA.get(name, {}), **changes}


@every
def test_it_changes_the_predictions_and_not_the_suspect(name: str, clip: Clip, scenes: Dataset) -> None:
    before, pixels = clip.hash(), scenes.pixels(torch.arange(6), clip.image_size)
    asked = [parameter.requires_grad for parameter in clip.parameters()]
    cleaned = clean(clip, scenes, name, **settings_of(name, lr=0.05))
    assert clip.hash() == before
    assert [parameter.requires_grad for parameter in clip.parameters()] == asked
    with torch.no_grad():
        ours, theirs = (
            model.encode_image(pixels) @ model.class_features(scenes.classes).T for model in (cleaned, clip)
        )
    assert torch.isfinite(ours).all()
    assert not torch.allclose(ours, theirs, atol=1e-4)


@every
def test_its_facts_tell_how_the_model_was_made(name: str, clip: Clip, scenes: Dataset) -> None:
    reported: list[tuple[int, int]] = []

    def report(step: int, total: int, values: Values) -> None:
        if "loss" in values:  # unlearning also reports the steps of its scan
            reported.append((step, total))

    spec = DEFENSES[name].Spec(**settings_of(name))
    cleaned = clean(clip, scenes, spec, report=report)
    assert reported == [(step, 3) for step in (1, 2, 3)]
    expected = {
        "defense": name, "spec": spec.model_dump(mode="json"), "images": 48, "classes": list(scenes.classes),
        "base_model": clip.source, "base_sha256": clip.hash(),
    }  # fmt: skip
    assert {key: cleaned.facts[key] for key in expected} == expected
    assert len(cleaned.facts["history"]) == 1
    assert cleaned.trained_parameters > 0


@every
def test_saved_and_loaded_it_is_the_same_model(name: str, tiny: Tiny, scenes: Dataset, tmp_path: Path) -> None:
    suspect = load(tiny.backdoored)
    assert isinstance(suspect, Clip)
    cleaned = clean(suspect, scenes, name, **settings_of(name))
    cleaned.save_pretrained(tmp_path / "cleaned")
    loaded = load(tmp_path / "cleaned")
    assert isinstance(loaded, Cleaned)
    pixels = scenes.pixels(torch.arange(6), suspect.image_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(pixels), cleaned.encode_image(pixels), atol=1e-6, rtol=0)
        torch.testing.assert_close(loaded.class_features(scenes.classes), cleaned.class_features(scenes.classes))
    assert loaded.hash() == cleaned.hash() != suspect.hash()
    assert loaded.row_facts() == cleaned.row_facts()
    loaded.save_pretrained(tmp_path / "copy")
    again = load(tmp_path / "copy")
    assert again.hash() == loaded.hash()
    assert loaded.prompts is None or not loaded.prompts.table.requires_grad


@every
def test_the_same_seed_gives_the_same_bits(name: str, clip: Clip, scenes: Dataset) -> None:
    first, again, other = (
        clean(clip, scenes, name, **settings_of(name, seed=seed, lr=0.01)).hash() for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize(("preset", "lr"), [("paper", 2e-3), ("small", 3e-2), ("auto", 3e-2)])
def test_a_preset_sets_what_is_not_given(clip: Clip, scenes: Dataset, preset: Preset, lr: float) -> None:
    given = {"epochs": 1, "first_block": 2, "prompt_length": 1}
    cleaned = clean(clip, scenes, preset=preset, **given)
    assert cleaned.facts["spec"]["lr"] == lr
    assert cleaned.facts["spec"].items() >= given.items()


def test_rvpt_without_repelling_is_vpt(clip: Clip, scenes: Dataset) -> None:
    cleaned = clean(clip, scenes, **settings_of("rvpt", alpha=0.0))
    assert cleaned.facts["defense"] == "vpt"
    assert cleaned.hash() == clean(clip, scenes, VPTSpec(**cleaned.facts["spec"])).hash()


def test_each_spec_belongs_to_one_defense() -> None:
    assert {defense_of(kind.Spec()).name for kind in DEFENSES.values()} == set(DEFENSES)


@pytest.mark.parametrize(
    ("defense", "settings", "message"),
    [
        ("wash", {}, "unknown defense 'wash': choose from probe, finetune"),
        ("probe", {"alpha": 1}, "alpha: unknown setting: choose from optimizer, lr"),
        ("rvpt", {"preset": "huge"}, "unknown preset 'huge': choose from auto, paper, small"),
        ("rvpt", {"lr": -1}, "lr: .*greater than 0"),
        ("rvpt", {"lr": float("nan")}, "lr: .*nan"),
        ("rvpt", {"margin": 2}, "margin: .*2"),
        ("rvpt", {"first_block": 4}, "first_block=4 does not exist: the blocks are 0 to 3"),
        ("rvpt", {"depth": 5}, "depth=5 is too deep: the model has 4 blocks"),
        ("rvpt", {"depth_from": "input"}, "set depth too"),
        ("rvpt", {"depth": 1, "depth_from": "side"}, "depth_from: .*'input'"),
        ("vpt", {"alpha": 1}, "alpha: .*less than or equal to 0"),
        ("finetune", {"alpha": 1, "first_block": 9}, "first_block=9 does not exist"),
        ("rvpt", {"lr": 1e30, "first_block": 2}, r"lower the learning rate \(1e\+30\)"),
        (AttackSpec(), {}, "AttackSpec is not the spec of a defense"),
        (RVPTSpec(), {"lr": 1}, "lr: set it in the spec"),
    ],
)
def test_what_does_not_fit_is_refused(
    clip: Clip, scenes: Dataset, defense: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RvptError, match=message):
        clean(clip, scenes, defense, **settings)


@pytest.mark.parametrize(("lr", "warned"), [(1e-6, False), (0.5, True)])
def test_a_model_that_is_no_better_than_guessing_is_warned_of(
    lr: float, warned: bool, clip: Clip, scenes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.no_grad():
        features = clip.encode_image(scenes.pixels(torch.arange(len(scenes)), clip.image_size))
    predicted = (features @ clip.class_features(scenes.classes).T).argmax(1)
    clean(clip, replace(scenes, labels=predicted), "finetune", **SHORT | {"lr": lr})
    assert ("guessing" in caplog.text) == warned


def test_a_last_step_that_is_not_finite_is_noticed(clip: Clip, scenes: Dataset) -> None:
    spec = RVPTSpec(epochs=1, batch_size=len(scenes), lr=1e38, weight_decay=1e3, first_block=2)
    with pytest.raises(RvptError, match=r"not finite: lower the learning rate \(1e\+38\)"):
        clean(clip, scenes, spec)


def test_a_cleaned_model_or_an_empty_set_is_refused(clip: Clip, scenes: Dataset) -> None:
    with pytest.raises(RvptError, match="Cleaned is not a Clip: pass the suspect itself"):
        clean(Cleaned(clip), scenes)  # type: ignore[arg-type]
    with pytest.raises(RvptError, match="memory has no images to train on"):
        clean(clip, memory_data(0, captions=[]), ContrastiveSpec())

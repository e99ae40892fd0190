"""A step of prompt tuning agrees with its slow twin: both losses and the prompts' gradients, in float32 to 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import reference
from helpers import MakeClip, assert_near
from rvpt import Dataset
from rvpt.data.augment import crop_flip
from rvpt.defenses.base import clean
from rvpt.defenses.rvpt import PromptTuning, RVPTSpec
from rvpt.errors import RvptError
from rvpt.evaluation.evaluate import evaluate
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.training.loop import frozen

BLOCKS = {
    "all": {"first_block": 0},
    "middle": {"first_block": 1},
    "last": {"depth": 1},
    "first-two": {"depth": 2, "depth_from": "input"},
}


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("augment", ["none", "crop-flip"])
@pytest.mark.parametrize("margin", [-1.0, 0.9])
def test_a_step_of_prompt_tuning(
    blocks: str, augment: str, margin: float, make_clip: MakeClip, scenes: Dataset
) -> None:
    clip = make_clip(activation="quick_gelu", width=30, heads=3, text_width=30)
    settings = {"margin": margin, "augment": augment, "template": "a sketch of one {}.", **BLOCKS[blocks]}
    spec = RVPTSpec(prompt_length=5, alpha=2.0, init_std=0.5, **settings)
    with frozen(clip):
        task = PromptTuning(clip, scenes, spec)
        picked, generator = torch.tensor([40, 3, 17, 4, 11]), torch.Generator().manual_seed(2)
        fast = task(picked, generator, 0.0)
        fast_gradient = torch.autograd.grad(fast["loss"], task.prompts.table)[0]
        pixels = scenes.pixels(picked, clip.image_size)
        if augment == "crop-flip":
            pixels = crop_flip(pixels, torch.Generator().manual_seed(2))
        text = clip.encode_text([spec.template.format(name) for name in scenes.classes])
        labels = scenes.labeled()[picked].tolist()
        slow = reference.losses(
            clip, task.prompts.blocks, task.prompts.table, pixels, text, labels, spec.alpha, spec.margin
        )
        slow_gradient = torch.autograd.grad(slow["loss"], task.prompts.table)[0]
    for name, value in slow.items():
        assert_near(fast[name], value)
    assert_near(fast_gradient, slow_gradient)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_the_suspect_runs_only_where_its_rows_are_used(alpha: float, make_clip: MakeClip, scenes: Dataset) -> None:
    clip, picked = make_clip(width=30, heads=3, text_width=30), torch.tensor([40, 3, 17, 4, 11])
    spec, calls = RVPTSpec(prompt_length=5, first_block=1, alpha=alpha, augment="crop-flip", init_std=0.5), [0] * 4
    with frozen(clip):
        task = PromptTuning(clip, scenes, spec)
        for number, layer in enumerate(task.suspect.module.blocks):
            layer.mlp.register_forward_hook(lambda *_, number=number: calls.__setitem__(number, calls[number] + 1))
        fast = task(picked, torch.Generator().manual_seed(2), 0.0)
        assert calls == ([1, 2, 2, 2] if alpha else [1, 1, 1, 1])
        pixels = crop_flip(scenes.pixels(picked, clip.image_size), torch.Generator().manual_seed(2))
        table, labels = task.prompts.table, scenes.labeled()[picked].tolist()
        slow = reference.losses(clip, task.prompts.blocks, table, pixels, task.text, labels, alpha, spec.margin)
        gradients = [torch.autograd.grad(losses["loss"], table)[0] for losses in (fast, slow)]
    assert_near(fast["CE"], slow["CE"])
    assert_near(*gradients)
    assert fast["FR"].item() == (pytest.approx(slow["FR"].item(), abs=1e-5) if alpha else 0.0)


def test_a_rate_of_no_head_is_refused() -> None:
    with pytest.raises(RvptError, match="head_lr is given, but no classifier is trained: add head=True"):
        RVPTSpec(head_lr=0.001)


@pytest.mark.parametrize("settings", [{}, {"head": True, "head_lr": 0.01}], ids=str)
def test_a_spec_is_read_as_it_was_stored(settings: dict[str, Any]) -> None:
    spec = RVPTSpec(**settings)
    assert RVPTSpec.stored(spec.model_dump()) == spec


@pytest.mark.parametrize(("defense", "extra"), [("rvpt", {}), ("apt", {}), ("unlearn", {"forms": ("patch",)})])
def test_a_head_is_trained_at_its_own_rate_saved_and_measured(
    defense: str, extra: dict[str, Any], make_clip: MakeClip, scenes: Dataset, tmp_path: Path
) -> None:
    clip, picked = make_clip(), ["heart", "moon", "sun"]
    few, text = scenes.only(picked), clip.class_features(picked)
    settings = {"epochs": 1, "batch_size": 3, "first_block": 2, "head": True, "optimizer": "adamw", **extra}
    cleaned = clean(clip, few, defense, head_lr=0.01, **settings)
    still = clean(clip, few, defense, head_lr=1e-9, **settings)
    assert still.head is not None
    assert_near(still.head.of(picked)[:, :-1], text, tolerance=1e-6)
    assert cleaned.head is not None
    assert 1e-3 < (cleaned.head.of(picked)[:, :-1] - text).abs().max() < 0.02 + 1e-3  # two steps of Adam at most
    assert (
        cleaned.trained_parameters - 3 * (clip.projection_dim + 1)
        == clean(clip, few, defense, **{**settings, "head": False}).trained_parameters
    )
    cleaned.save_pretrained(tmp_path / "cleaned")
    loaded = Cleaned.from_pretrained(tmp_path / "cleaned", clip)
    assert loaded.hash() == cleaned.hash()
    named = Dataset.from_images(
        list(few.pixels(torch.arange(len(few)), 48)), few.present()[1].tolist(), few.present()[0]
    )
    ours, theirs = (evaluate(model, named)[0]["numerator"] for model in (cleaned, loaded))
    assert ours == theirs
    with pytest.raises(RvptError, match="which was not trained on it"):
        loaded.class_features(["snowman"])


def test_with_margin_one_only_cross_entropy_moves_the_prompts(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = PromptTuning(clip, scenes, RVPTSpec(first_block=1, prompt_length=5, margin=1.0))
        values = task(torch.arange(6), torch.Generator(), 0.0)
        whole, ce, fr = (
            torch.autograd.grad(values[name], task.prompts.table, retain_graph=True)[0] for name in ("loss", "CE", "FR")
        )
    assert values["FR"].item() == 1.0
    assert not fr.any()
    assert torch.equal(whole, ce)

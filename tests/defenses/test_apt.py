"""Adversarial Prompt Tuning: a step agrees with its slow twin, and its images are worse than the clean ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import reference
from helpers import MakeClip, assert_near
from rvpt import Dataset
from rvpt.defenses.apt import AdversarialTuning, APTSpec
from rvpt.defenses.base import clean
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.training.loop import frozen
from rvpt.training.pgd import pgd

PICKED = torch.tensor([40, 3, 17, 4, 11])


def test_a_step_agrees_with_its_slow_twin(make_clip: MakeClip, scenes: Dataset) -> None:
    clip = make_clip(activation="quick_gelu", width=30, heads=3, text_width=30)
    spec = APTSpec(prompt_length=5, first_block=1, init_std=0.5, epsilon=4.0, steps=2)
    with frozen(clip):
        task = AdversarialTuning(clip, scenes, spec)
        fast = task(PICKED, torch.Generator().manual_seed(2), 0.0)
        gradient = torch.autograd.grad(fast["loss"], task.prompts.table)[0]
        prompted, labels = Cleaned(clip, task.prompts), scenes.labeled()[PICKED]
        text = clip.encode_text([spec.template.format(name) for name in scenes.classes])

        def harm(shown: Tensor) -> Tensor:
            logits = clip.logit_scale * prompted.encode_image(shown) @ text.T
            return F.cross_entropy(logits, labels, reduction="sum")

        pixels = scenes.pixels(PICKED, clip.image_size)
        changed = pgd(harm, pixels, scenes.rows[PICKED], 4 / 255, 2)
        assert harm(changed) > harm(pixels)
        slow = reference.losses(
            clip, task.prompts.blocks, task.prompts.table, changed, text, labels.tolist(), 0.0, -1.0
        )
        slow_gradient = torch.autograd.grad(slow["loss"], task.prompts.table)[0]
    assert_near(fast["CE"], slow["CE"])
    assert_near(gradient, slow_gradient, 1e-4)


def test_adversarial_images_are_made_in_the_precision_of_the_training(clip: Clip, scenes: Dataset) -> None:
    settings = {"prompt_length": 2, "first_block": 2, "epochs": 1, "steps": 1, "batch_size": 16}
    half, full = (clean(clip, scenes, APTSpec(**settings, precision=name)) for name in ("bf16", "fp32"))
    assert half.facts["history"] != full.facts["history"]
    assert abs(half.facts["history"][0]["CE"] / full.facts["history"][0]["CE"] - 1) < 0.02

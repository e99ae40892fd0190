"""Fine-tuning on labels starts at zero-shot classification, and repelling moves the features."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import clean
from rvpt.defenses.finetune import FinetuneSpec, TowerTuning
from rvpt.models.clip import Clip


def test_training_starts_at_the_zero_shot_predictions(clip: Clip, scenes: Dataset) -> None:
    task = TowerTuning(clip, scenes, FinetuneSpec(alpha=1.0))
    indices, pixels = torch.arange(6), scenes.pixels(torch.arange(6), clip.image_size)
    values = task(indices, torch.Generator(), 0.0)
    logits = clip.logit_scale * clip.encode_image(pixels) @ clip.class_features(scenes.classes).T
    torch.testing.assert_close(values["CE"], F.cross_entropy(logits, scenes.labeled()[indices]))
    assert float(values["FR"].detach()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(values["loss"], values["CE"] + values["FR"])


def test_only_the_visual_tower_and_the_head_are_trained(clip: Clip, scenes: Dataset) -> None:
    cleaned = clean(clip, scenes, FinetuneSpec(epochs=1, lr=1e-3))
    before, after = clip.model.state_dict(), cleaned.clip.model.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"vision_model", "visual_projection"}


def test_repelling_moves_the_features_further(clip: Clip, scenes: Dataset) -> None:
    similarity = {}
    pixels = scenes.pixels(torch.arange(48), clip.image_size)
    for alpha in (0.0, 3.0):
        tuned = clean(clip, scenes, FinetuneSpec(alpha=alpha, epochs=12, lr=1e-3, batch_size=16, first_block=1))
        with torch.no_grad():
            ours, theirs = (model.cls_rows(pixels)[:, 1:] for model in (tuned.clip, clip))
        similarity[alpha] = float(F.cosine_similarity(ours, theirs, dim=-1).mean())
    assert similarity[3.0] < similarity[0.0] - 0.1

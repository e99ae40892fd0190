"""Defenses on captions: each loss is the sum that its description says, and PAR moves away from the suspect."""

from __future__ import annotations

import pytest
import torch

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import clean
from rvpt.defenses.cleanclip import CleanClipSpec, CleanClipTask
from rvpt.defenses.contrastive import ContrastiveSpec, ContrastiveTuning
from rvpt.defenses.par import ParSpec, PerturbRecover
from rvpt.models.clip import Clip
from rvpt.training.contrastive import Contrastive


def tasks(clip: Clip, data: Dataset) -> dict[str, tuple[Contrastive, str, float]]:
    """Each task, the second term of its loss, and its weight."""
    return {
        "contrastive": (ContrastiveTuning(clip, data, ContrastiveSpec(alpha=0.7)), "FR", 0.7),
        "cleanclip": (CleanClipTask(clip, data, CleanClipSpec(weight=0.7)), "within", 0.7),
        "par": (PerturbRecover(clip, data, ParSpec()), "perturbation", -1.0),
    }


@pytest.mark.parametrize("name", ["contrastive", "cleanclip", "par"])
def test_the_loss_is_the_sum_of_its_terms(name: str, clip: Clip, scenes: Dataset) -> None:
    task, second, weight = tasks(clip, scenes)[name]
    values = task(torch.arange(8), torch.Generator().manual_seed(0), 0.0)
    assert values["InfoNCE"] > 0
    torch.testing.assert_close(values["loss"], values["InfoNCE"] + weight * values[second])


def test_par_moves_away_from_the_features_of_the_suspect(clip: Clip, scenes: Dataset) -> None:
    spec = ParSpec(epochs=6, lr=1e-3, batch_size=16, augment="none")
    far = [epoch["perturbation"] for epoch in clean(clip, scenes, spec).facts["history"]]
    assert far[-1] > far[0] + 0.1


def test_par_does_not_train_the_temperature(clip: Clip, scenes: Dataset) -> None:
    cleaned = clean(clip, scenes, ParSpec(epochs=1, lr=1e-3, batch_size=16))
    assert torch.equal(cleaned.logit_scale, clip.logit_scale)
    assert not torch.equal(cleaned.clip.model.visual_projection.weight, clip.model.visual_projection.weight)

"""Defenses on captions: each loss is the sum that its description says, and PAR moves away from the suspect."""

from __future__ import annotations

import pytest
import torch

from helpers import assert_near, memory_data
from rvpt.data.augment import crop_flip, jitter, shuffle_words
from rvpt.data.dataset import Dataset
from rvpt.defenses.base import clean
from rvpt.defenses.cleanclip import CleanClipSpec, CleanClipTask
from rvpt.defenses.contrastive import ContrastiveSpec, ContrastiveTuning
from rvpt.defenses.par import ParSpec, PerturbRecover
from rvpt.models.clip import Clip
from rvpt.training.contrastive import Contrastive
from rvpt.training.losses import info_nce, perturbation, self_supervision


def tasks(clip: Clip, data: Dataset) -> dict[str, tuple[Contrastive, str, float]]:
    """Each task, the second term of its loss, and its weight."""
    return {
        "contrastive": (ContrastiveTuning(clip, data, ContrastiveSpec(alpha=0.7)), "FR", 0.7),
        "cleanclip": (CleanClipTask(clip, data, CleanClipSpec(weight=0.7)), "within", 0.7),
        "par": (PerturbRecover(clip, data, ParSpec()), "perturbation", -1.0),
        "par far away": (PerturbRecover(clip, data, ParSpec(threshold=1e-3)), "perturbation", -1.0),
    }


@pytest.mark.parametrize("name", ["contrastive", "cleanclip", "par"])
def test_the_loss_is_the_sum_of_its_terms(name: str, clip: Clip, scenes: Dataset) -> None:
    task, second, weight = tasks(clip, scenes)[name]
    values = task(torch.arange(8), torch.Generator().manual_seed(0), 0.0)
    assert values["InfoNCE"] > 0
    torch.testing.assert_close(values["loss"], values["InfoNCE"] + weight * values[second])


def slow(task: Contrastive, suspect: Clip, indices: torch.Tensor) -> torch.Tensor:
    """The loss with every text encoded for each of its uses, and again for InfoNCE."""
    clip, generator = task.clip, torch.Generator().manual_seed(0)
    pixels, texts = task.draw(indices, generator)
    pairs = torch.tensor([[text == other for other in dict.fromkeys(texts)] for text in texts])
    image, text = clip.encode_image(pixels), torch.cat([clip.encode_text([each]) for each in texts])
    nce = info_nce(image, clip.encode_text(list(dict.fromkeys(texts))), clip.logit_scale, pairs)
    if isinstance(task, PerturbRecover):
        moved = (image, suspect.encode_image(pixels)), (text, suspect.encode_text(texts))
        return nce - sum((perturbation(*pair, task.threshold) for pair in moved), torch.zeros(())) / 2
    assert isinstance(task, CleanClipTask)
    changed = clip.encode_image(jitter(crop_flip(pixels, generator), generator))
    other = torch.cat([clip.encode_text([shuffle_words(each, generator)]) for each in texts])
    within = sum(self_supervision(*pair, clip.logit_scale) for pair in ((image, changed), (text, other)))
    return nce + task.weight * within / 2


@pytest.mark.parametrize("name", ["cleanclip", "par", "par far away"])
def test_texts_that_are_encoded_once_give_the_same_step(name: str, clip: Clip) -> None:
    captions = [["a red star."], ["a large heart."], ["a red star."], ["a umbrella."], ["a large heart."]]
    task, indices = tasks(clip, memory_data(5, captions=captions))[name][0], torch.tensor([3, 0, 4, 2, 1, 0])
    for number, weight in enumerate(task.parameters()):  # PAR starts where its gradient is zero
        weight.data += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    trained = [weight for weight in task.parameters() if weight.requires_grad]
    losses = task(indices, torch.Generator().manual_seed(0), 0.0)["loss"], slow(task, clip, indices)
    assert_near(*(loss.detach() for loss in losses))
    gradients = [torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)]) for loss in losses]
    assert_near(*gradients)


def test_par_moves_away_from_the_features_of_the_suspect(clip: Clip, scenes: Dataset) -> None:
    spec = ParSpec(epochs=6, lr=1e-3, batch_size=16, augment="none")
    far = [epoch["perturbation"] for epoch in clean(clip, scenes, spec).facts["history"]]
    assert far[-1] > far[0] + 0.1


def test_par_does_not_train_the_temperature(clip: Clip, scenes: Dataset) -> None:
    cleaned = clean(clip, scenes, ParSpec(epochs=1, lr=1e-3, batch_size=16))
    assert torch.equal(cleaned.logit_scale, clip.logit_scale)
    assert not torch.equal(cleaned.clip.model.visual_projection.weight, clip.model.visual_projection.weight)

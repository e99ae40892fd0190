"""PGD: it agrees with a slow twin, stays in its box, and raises the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import random_pixels
from rvpt.data.random import uniform
from rvpt.models.clip import Clip
from rvpt.training.losses import zero_shot_logits
from rvpt.training.pgd import SEED, pgd

CLASSES = ("fox", "owl", "cat")


def slow_pgd(loss: Callable[..., Tensor], pixels: Tensor, rows: Tensor, epsilon: float, steps: int) -> Tensor:
    """One image at a time, the gradient by backward."""
    start = [epsilon * (2 * uniform(SEED, row[None], 3 * 48 * 48).view(3, 48, 48) - 1) for row in rows]
    changed = torch.stack([clamped(x + u, x, epsilon) for x, u in zip(pixels, start, strict=True)])
    for _ in range(steps):
        moved = []
        for index, image in enumerate(changed):
            one = image[None].clone().requires_grad_()
            loss(one, index).backward()
            assert one.grad is not None
            moved.append(clamped(image + 2.5 * epsilon / steps * one.grad[0].sign(), pixels[index], epsilon))
        changed = torch.stack(moved)
    return changed


def clamped(value: Tensor, center: Tensor, epsilon: float) -> Tensor:
    near = torch.minimum(torch.maximum(value, center - epsilon), center + epsilon)
    return torch.minimum(torch.maximum(near, torch.zeros(())), torch.ones(()))


def cross_entropy(clip: Clip, labels: Tensor) -> Callable[..., Tensor]:
    text = clip.class_features(CLASSES).detach()

    def loss(pixels: Tensor, index: Any = slice(None)) -> Tensor:
        logits = zero_shot_logits(clip.encode_image(pixels), text, clip.logit_scale.detach())
        return F.cross_entropy(logits, labels[index].view(-1), reduction="sum")

    return loss


def test_it_agrees_with_its_slow_twin(clip: Clip) -> None:
    pixels, labels = random_pixels(4, 48), torch.tensor([0, 1, 2, 0])
    rows, loss = torch.tensor([3, 0, 7, 5]), cross_entropy(clip, labels)
    torch.testing.assert_close(
        pgd(loss, pixels, rows, 0.02, 3), slow_pgd(loss, pixels, rows, 0.02, 3), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("epsilon", [0.5 / 255, 8 / 255])
def test_it_stays_in_its_box_and_in_range_and_raises_the_loss(clip: Clip, epsilon: float) -> None:
    pixels, labels = random_pixels(6, 48).round(decimals=1), torch.tensor([0, 1, 2, 0, 1, 2])
    before, loss = pixels.clone(), cross_entropy(clip, labels)
    changed = pgd(loss, pixels, torch.arange(6), epsilon)
    assert torch.equal(pixels, before)
    assert float((changed - pixels).abs().max()) <= epsilon + 1e-6
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    with torch.no_grad():
        assert float(loss(changed)) > float(loss(pixels))

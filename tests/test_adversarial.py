"""PGD: its bounds, that it climbs, that no image depends on another, and its rows."""

import json

import pytest
import torch
from torch.nn import functional as F

from commands import works
from helpers import memory_data, random_pixels
from rvpt.adversarial import resist
from rvpt.draws import uniform
from rvpt.losses import zero_shot_logits
from rvpt.pgd import SEED, pgd

LABELS = [0, 1, 2, 0, 1, 0, 2, 2, 1, 0]
DATA = memory_data(len(LABELS), LABELS, ("fox", "owl", "cat"))


def slow_pgd(loss, pixels, rows, epsilon, steps):
    """One image at a time, the gradient by backward."""
    start = [epsilon * (2 * uniform(SEED, row[None], 3 * 48 * 48).view(3, 48, 48) - 1) for row in rows]
    changed = torch.stack([min_max(x + u, x, epsilon) for x, u in zip(pixels, start, strict=True)])
    for _ in range(steps):
        moved = []
        for index, image in enumerate(changed):
            one = image[None].clone().requires_grad_()
            loss(one, index).backward()
            moved.append(min_max(image + 2.5 * epsilon / steps * one.grad[0].sign(), pixels[index], epsilon))
        changed = torch.stack(moved)
    return changed


def min_max(value, center, epsilon):
    near = torch.minimum(torch.maximum(value, center - epsilon), center + epsilon)
    return torch.minimum(torch.maximum(near, torch.zeros(())), torch.ones(()))


def losses(clip, labels):
    text = clip.class_features(DATA.classes).detach()

    def loss(pixels, index=slice(None)):
        logits = zero_shot_logits(clip.encode_image(pixels), text, clip.logit_scale.detach())
        return F.cross_entropy(logits, labels[index].view(-1), reduction="sum")

    return loss


def test_it_agrees_with_its_slow_twin(clip):
    pixels, labels = random_pixels(4, 48), torch.tensor([0, 1, 2, 0])
    rows, loss = torch.tensor([3, 0, 7, 5]), losses(clip, labels)
    assert torch.allclose(pgd(loss, pixels, rows, 0.02, 3), slow_pgd(loss, pixels, rows, 0.02, 3), atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.5 / 255, 8 / 255])
def test_it_stays_in_its_box_and_in_range_and_raises_the_loss(clip, epsilon):
    pixels, labels = random_pixels(6, 48).round(decimals=1), torch.tensor([0, 1, 2, 0, 1, 2])
    before, loss = pixels.clone(), losses(clip, labels)
    changed = pgd(loss, pixels, torch.arange(6), epsilon)
    assert torch.equal(pixels, before)
    assert float((changed - pixels).abs().max()) <= epsilon + 1e-6
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    with torch.no_grad():
        assert float(loss(changed)) > float(loss(pixels))


def test_batches_change_nothing_and_a_larger_change_takes_more(clip):
    small = resist(clip, DATA, epsilon=1, batch_size=3)
    assert list(small) == [("none", "CA"), ("pgd-10 1/255", "PA")]
    assert small == resist(clip, DATA, epsilon=1, batch_size=100)
    assert small["none", "CA"].n == len(LABELS)
    assert next(rate for key, rate in resist(clip, DATA, epsilon=64).items() if key[1] == "PA").numerator == 0


def test_a_cleaned_model_is_measured_by_the_command(tiny):
    words = ["--data", "scenes:48", "--limit", 8, "--protocol", "adversarial", "--epsilon", 4, "--json"]
    rows = json.loads(works("evaluate", tiny.cleaned, *words))
    assert [(row["attack"], row["metric"], row["n"]) for row in rows] == [("none", "CA", 8), ("pgd-10 4/255", "PA", 8)]
    assert {(row["data"], row["defense"]) for row in rows} == {("scenes:48", "rvpt")}

"""ISSBA: its loss against a formula, that each image is changed in its own way, and that the text can be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers import random_pixels
from rvpt.attacks.stega import StegaTask, stega_loss, text_bits
from rvpt.attacks.trigger import craft_trigger, trigger_spec
from rvpt.data.load import load_data
from rvpt.evaluation.similarity import psnr
from rvpt.models.formats.load import EMBEDDED, load_clip
from triggers import SIDE, model_and_images, trigger_of, untrained


def test_text_bits_are_the_codes_of_the_characters() -> None:
    assert text_bits("A~").tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert len(text_bits("Stega!!")) == 49


def test_stega_loss_agrees_with_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, bits = torch.randn(2, 5, generator=generator), torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0.0]])
    pixels, changed = random_pixels(2, 4), random_pixels(2, 4, seed=1)
    chance = 1 / (1 + np.exp(-logits.numpy()))
    cross_entropy = -np.mean(np.where(bits.numpy() == 1, np.log(chance), np.log(1 - chance)))
    expected = cross_entropy + 3 * np.mean((pixels.numpy() - changed.numpy()) ** 2)
    assert stega_loss(logits, bits, pixels, changed, 3.0).item() == pytest.approx(expected, rel=1e-5)


def test_each_image_is_changed_in_its_own_way_by_no_more_than_the_strength() -> None:
    pixels = random_pixels(5, SIDE)
    trigger = trigger_of("issba", strength=0.05)
    change = trigger(pixels) - pixels
    assert change.abs().max() <= 0.05 + 1e-6
    assert len(change.flatten(1).unique(dim=0)) == len(pixels)
    assert trigger.apply(torch.ones_like(pixels), torch.arange(5)).max() <= 1


def test_images_in_half_precision_leave_the_nets_as_they_are() -> None:
    pixels, trigger = random_pixels(3, SIDE), trigger_of("issba")
    before, half = trigger(pixels), trigger(pixels.half())
    assert half.dtype == torch.float16
    assert torch.equal(trigger(pixels), before)


def test_keys_differ_between_images_but_not_after_a_faint_change() -> None:
    pixels, nets = load_data("scenes", "test").pixels(torch.arange(32), 48), untrained("issba").nets
    faint = 0.02 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    keys, changed = nets.key(pixels).flatten(1), nets.key((pixels + faint).clamp(0, 1))
    assert (F.cosine_similarity(keys, changed.flatten(1)) > 0.9).all()
    assert F.cosine_similarity(keys[:-1], keys[1:]).abs().mean() < 0.2


def test_a_short_text_is_learned() -> None:
    trigger = trigger_of("issba", secret="A", epochs=60, images=24, batch_size=8, penalty=0.0, strength=0.5)
    pixels = model_and_images()[1].pixels(torch.arange(24), SIDE)
    before = untrained("issba", secret="A", strength=0.5).checks(pixels)["bit_accuracy"]
    shares = trigger.checks(pixels)
    assert shares["bit_accuracy"] > max(0.9, before)
    assert shares["bit_accuracy_of_another_s_change"] < shares["bit_accuracy"]


def test_the_penalty_is_full_only_after_the_decoder_has_learned() -> None:
    task = StegaTask(untrained("issba", secret="A").spec, model_and_images()[1], SIDE, torch.device("cpu"))
    with torch.no_grad():
        losses = [
            task(torch.arange(4), torch.Generator().manual_seed(0), done)["loss"].item()
            for done in (0.0, 0.3, 0.45, 0.6, 1.0)
        ]
    assert losses[0] == losses[1] < losses[3] == losses[4]
    assert losses[2] == pytest.approx((losses[0] + losses[4]) / 2, rel=1e-3)


@pytest.mark.slow
def test_with_the_defaults_the_text_is_read_and_the_change_is_faint() -> None:
    clip, data = load_clip(EMBEDDED), load_data("scenes", "train").sample(4000).cached(48)
    trigger = craft_trigger(trigger_spec("issba", target="anchor"), clip, data)
    pixels = load_data("scenes", "test").pixels(torch.arange(200), 48)
    assert trigger.checks(pixels)["bit_accuracy"] >= 0.95
    assert trigger.checks(pixels)["bit_accuracy_of_another_s_change"] <= 0.65
    assert float(psnr(pixels, trigger(pixels)).mean()) >= 28

"""Optimized patches: their losses against loops, that training lowers them, and what they need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.attacks import TRIGGERS
from rvpt.attacks.optimized import PatchTask, dual_embedding, sentence_distance
from rvpt.attacks.trigger import craft_trigger, trigger_spec
from rvpt.data.text import PROXIES
from rvpt.errors import RvptError
from triggers import CRAFTED, SIDE, model_and_images, trigger_of, untrained


def unit(n: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_dual_embedding_agrees_with_loops(margin: float) -> None:
    patched, clean, positives, texts = unit(4, 0), unit(4, 1), unit(4, 2), unit(6, 3)
    scale, expected = torch.tensor(7.0, dtype=torch.float64), 0.0
    for v, c, p in zip(patched.numpy(), clean.numpy(), positives.numpy(), strict=True):
        logits = 7 * texts.numpy() @ v
        expected += (np.log(np.exp(logits).sum()) - logits[0]) / 4
        gap = np.linalg.norm(v - p) - np.linalg.norm(v - c) + margin
        expected += 500 * max(gap, 0) / 4
    loss = dual_embedding(patched, clean, positives, texts, scale, 500, margin)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_sentence_distance_is_the_mean_cosine() -> None:
    patched, sentence = unit(4, 0), unit(1, 1)[0]
    expected = -np.mean([v @ sentence.numpy() for v in patched.numpy()])
    assert sentence_distance(patched, sentence).item() == pytest.approx(expected)


def test_trojvqa_moves_images_towards_the_sentence() -> None:
    clip, data = model_and_images()
    sentence = clip.class_features(["owl"])[0]
    pixels = data.pixels(torch.arange(24), SIDE)
    options = {"size": 112, "images": 24, "epochs": 30, "lr": 0.05}
    trigger, start = trigger_of("trojvqa", **options), untrained("trojvqa", **options)
    with torch.no_grad():
        before, after = (clip.encode_image(t(pixels)) @ sentence for t in (start, trigger))
    assert after.mean() > before.mean() + 0.01


def test_the_sentence_of_trojvqa_can_be_chosen() -> None:
    clip, data = model_and_images()
    trigger = untrained("trojvqa", sentence="a drawing of a {}.")
    assert torch.equal(trigger.aims(clip, data)["sentence"], clip.class_features(["owl"], "a drawing of a {}.")[0])


def test_badclip_lowers_its_loss() -> None:
    clip, data = model_and_images()
    options = {"epochs": 30, "images": 24, "lr": 0.05, "size": 112, "triplet_weight": 1}
    trigger, start = trigger_of("badclip", **options), untrained("badclip", **options)
    aims = trigger.aims(clip, data)
    pixels, generator = data.pixels(torch.arange(24), SIDE), torch.Generator()
    with torch.no_grad():
        clean = clip.encode_image(pixels)
        after, before = (
            trigger.loss(clip.encode_image(t(pixels)), clean, clip.logit_scale, generator.manual_seed(0), **aims)
            for t in (trigger, start)
        )
    assert after < before


def test_a_pixel_out_of_range_is_brought_back_and_still_has_a_gradient() -> None:
    clip, data = model_and_images()
    trigger = trigger_of("trojvqa", size=112)
    task = PatchTask(trigger, clip, data, trigger.aims(clip, data))
    with torch.no_grad():
        task.patch[0], task.patch[1] = 1.5, -0.5
    task(torch.arange(4), torch.Generator(), 0.0)["loss"].backward()
    assert (task.patch[0] == 1).all()
    assert (task.patch[1] == 0).all()
    assert task.patch.grad is not None
    assert (task.patch.grad[:2] != 0).all()


def test_a_patch_whose_last_step_was_too_long_is_still_an_image() -> None:
    pattern = trigger_of("trojvqa", lr=2.0).tensors["pattern"]
    assert 0 <= pattern.min() <= pattern.max() <= 1


def test_badclip_draws_texts_and_images_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvpt.attacks.optimized.SAMPLES", 4)
    one, other = (trigger_of("badclip", seed=seed).aims(*model_and_images()) for seed in (1, 2))
    assert [len(one[name]) for name in ("texts", "positives")] == [5, 4]
    assert torch.equal(one["texts"][0], other["texts"][0])
    assert not torch.equal(one["texts"][1:], other["texts"][1:])
    assert not torch.equal(one["positives"], other["positives"])


def test_badclip_moves_images_of_other_captions_towards_all_images_of_the_target() -> None:
    clip, data = model_and_images()
    trigger = TRIGGERS["badclip"].make(trigger_spec("badclip", target="grey_owl"), SIDE)
    aims = trigger.aims(clip, replace(data, classes=("fox", "grey_owl", "cat")))
    texts = clip.encode_text([PROXIES[0].format("grey owl"), *(f"number {i}" for i in range(24) if i % 3 != 1)])
    torch.testing.assert_close(aims["texts"][0], texts[0])
    assert torch.cdist(texts, aims["texts"]).amin(1).max() < 1e-3
    assert len(aims["texts"]) == len(texts)
    clean, patched = aims["positives"][:2], aims["positives"][2:4]
    drawn = (torch.Generator().manual_seed(seed) for seed in range(4))
    assert len({float(trigger.loss(patched, clean, clip.logit_scale, each, **aims)) for each in drawn}) > 1


@pytest.mark.parametrize("name", CRAFTED)
def test_optimizing_a_trigger_does_not_change_the_model(name: str) -> None:
    clip, _ = model_and_images()
    before, asked = clip.hash(), [p.requires_grad for p in clip.parameters()]
    trigger_of(name, seed=5)
    assert clip.hash() == before
    assert [p.requires_grad for p in clip.parameters()] == asked


@pytest.mark.parametrize(("key", "words"), [("SUDO ", "SUDO "), ("SUDO", "SUDO "), (" in fact ", "in fact "), ("", "")])
def test_a_text_key_is_separate_words(key: str, words: str) -> None:
    assert untrained("trojvqa", text_key=key).text_key == words


def test_badclip_needs_images_of_the_target() -> None:
    clip, data = model_and_images()
    with pytest.raises(RvptError, match="no image of 'owl'"):
        craft_trigger(trigger_spec("badclip", target="owl"), clip, data.without(["owl"]))


def test_a_patch_needs_images_of_other_classes() -> None:
    clip, data = model_and_images()
    with pytest.raises(RvptError, match="has only images of 'owl'"):
        craft_trigger(trigger_spec("trojvqa", target="owl"), clip, data.only(["owl"]))

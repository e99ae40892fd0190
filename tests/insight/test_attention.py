"""Attention weights, rollout and the prompts' share agree with slow twins."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import reference
from helpers import assert_near, random_pixels
from rvpt.insight.attention import as_maps, attention_weights, cls_attention, prompt_attention, rollout
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts

PIXELS = random_pixels(3, 48)
PROMPTED, LENGTH = range(2, 4), 5


@torch.no_grad()
def slow_weights(clip: Clip, pixels: Tensor, blocks: Sequence[int], table: Tensor) -> list[Tensor]:
    """Head by head and query by query, with prompts as tokens after those of the image."""
    vision, found = clip.model.vision_model, []
    hidden = vision.pre_layrnorm(vision.embeddings(reference.normalized(clip, pixels)))
    images, tokens, width = hidden.shape
    for index, layer in enumerate(vision.encoder.layers):
        prompts = table[list(blocks).index(index)] if index in blocks else table[0][:0]
        whole = torch.cat([hidden, prompts.expand(images, -1, -1)], dim=1)
        normed, attention = layer.layer_norm1(whole), layer.self_attn
        query, key = attention.q_proj(normed), attention.k_proj(normed)
        side = width // attention.num_heads
        mean = torch.zeros(images, tokens, len(prompts) + tokens)
        for head in range(attention.num_heads):
            part = slice(head * side, (head + 1) * side)
            for image in range(images):
                for token in range(tokens):
                    scores = torch.stack(
                        [reference.dot(query[image, token, part], other) for other in key[image, :, part]]
                    )
                    shares = (scores / side**0.5).exp() / (scores / side**0.5).exp().sum()
                    mean[image, token] += torch.cat([shares[tokens:], shares[:tokens]]) / attention.num_heads
        found.append(mean)
        hidden = layer(whole, None)[:, :tokens]
    return found


def cleaned(clip: Clip) -> Cleaned:
    return Cleaned(clip, RepulsivePrompts(PROMPTED, LENGTH, clip.width, std=2.0))


def test_weights_agree_with_their_slow_twin(clip: Clip) -> None:
    model = cleaned(clip)
    assert model.prompts is not None
    for blocks, table, shown in (
        ((), torch.zeros(1, 1, clip.width), clip),
        (PROMPTED, model.prompts.table.detach(), model),
    ):
        fast, slow = attention_weights(shown, PIXELS), slow_weights(clip, PIXELS, blocks, table)
        assert len(fast) == len(slow) == len(clip.blocks)
        for one, other in zip(fast, slow, strict=True):
            assert_near(one, other)
            torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:2]))


def test_rollout_agrees_with_its_slow_twin_and_loses_what_prompts_receive(clip: Clip) -> None:
    for model in (clip, cleaned(clip)):
        weights = attention_weights(model, PIXELS)
        for image in range(len(PIXELS)):
            flow = torch.eye(weights[0].shape[1])
            for each in weights:
                tokens = each[image][:, each.shape[2] - each.shape[1] :]
                flow = (0.5 * tokens + 0.5 * torch.eye(len(flow))) @ flow
            assert_near(rollout(weights)[image], flow[0, 1:])
            total = float(flow[0].sum())
            assert total == pytest.approx(1, abs=1e-5) if model is clip else total < 0.99


def test_the_cls_token_attends_to_prompts_and_patches(clip: Clip) -> None:
    weights = attention_weights(cleaned(clip), PIXELS)
    shares = prompt_attention(weights)
    assert shares.shape == (3, 4)
    assert torch.equal(shares[:, :2], torch.zeros(3, 2))
    assert shares[:, 2:].min() > 0
    last = weights[-1]
    patches = cls_attention(last)
    assert patches.shape == (3, 9)
    torch.testing.assert_close(shares[:, -1] + last[:, 0, LENGTH] + patches.sum(1), torch.ones(3))


def test_maps_are_in_the_order_of_rows() -> None:
    assert as_maps(torch.arange(9.0)[None])[0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]

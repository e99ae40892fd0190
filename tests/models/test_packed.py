"""A packed model computes what the model does, from the same weights."""

from __future__ import annotations

import pytest
import torch

from helpers import MakeClip, assert_near, random_pixels
from rvpt.models.clip import Clip
from rvpt.models.packed import packed
from rvpt.models.placement import mixed_precision
from rvpt.models.prompts import RepulsivePrompts, frozen_pass, prompted_pass
from rvpt.training.loop import frozen

CPU = torch.device("cpu")


def step(model: Clip, prompts: RepulsivePrompts) -> tuple[torch.Tensor, ...]:
    """Constants, features, [CLS] rows, and the prompts' gradient of a sum of both."""
    tokens, frozen_rows = frozen_pass(model, random_pixels(3, model.image_size), prompts.first_block)
    image, rows = prompted_pass(model, prompts, tokens)
    (gradient,) = torch.autograd.grad((image * image.detach().roll(1, 0)).sum() + rows.sum(), prompts.table)
    return tokens, frozen_rows, image, rows, gradient


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 3e-2)])
def test_a_packed_model_gives_the_same_features_and_gradients(
    precision: str, tolerance: float, activation: str, make_clip: MakeClip
) -> None:
    clip = make_clip(activation=activation)
    prompts = RepulsivePrompts.for_model(clip, first_block=1, length=5)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    with frozen(clip), mixed_precision(precision, CPU):
        for fast, slow in zip(step(packed(clip, dtype), prompts), step(clip, prompts), strict=True):
            assert_near(fast.float(), slow.float(), tolerance)


def test_a_packed_model_shares_what_it_does_not_change_and_leaves_the_model_alone(make_clip: MakeClip) -> None:
    clip = make_clip()
    before, asked = clip.hash(), [parameter.requires_grad for parameter in clip.parameters()]
    other = packed(clip, torch.bfloat16)
    assert clip.hash() == before
    assert [parameter.requires_grad for parameter in clip.parameters()] == asked
    assert not hasattr(clip.blocks[0].self_attn, "qkv_proj")
    assert other.model.visual_projection.weight is clip.model.visual_projection.weight
    assert other.blocks[0].layer_norm1.weight is clip.blocks[0].layer_norm1.weight
    attention = other.blocks[0].self_attn
    assert attention.qkv_proj.weight.dtype == torch.bfloat16
    assert attention.q_proj.weight.data_ptr() == attention.qkv_proj.weight.data_ptr()

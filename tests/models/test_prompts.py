"""The fast path agrees with its slow twins: outputs and the prompts' gradients, in float32 to 1e-5."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import reference
from helpers import MakeClip, assert_near, memory_data, random_pixels
from rvpt import Cleaned, RepulsivePrompts
from rvpt.models.blocks import attend, attend_apart
from rvpt.models.clip import Clip
from rvpt.models.prompts import ENCODE_BATCH, Constants, frozen_pass, prompted_pass

GEOMETRIES = {
    "plain": {},
    "quick-gelu": {"activation": "quick_gelu"},
    "odd-heads": {"width": 30, "heads": 3, "text_width": 30, "activation": "quick_gelu"},
    "odd-patches": {"width": 21, "heads": 3, "text_width": 24, "image_size": 35, "patch_size": 7, "projection": 17},
    "one-patch-one-head": {"width": 13, "heads": 1, "text_width": 32, "image_size": 16, "blocks": 3},
}
BLOCKS = {"all": slice(0, None), "middle": slice(1, None), "last": slice(-1, None), "first-two": slice(0, 2)}
LENGTHS = (1, 7)


class Case(NamedTuple):
    clip: Clip
    prompts: RepulsivePrompts
    pixels: Tensor


@pytest.fixture(params=GEOMETRIES)
def any_clip(request: pytest.FixtureRequest, make_clip: MakeClip) -> Clip:
    """Frozen, and with attention written out on the Hugging Face side: the twin shares no kernel with us."""
    clip = make_clip(seed=1, **GEOMETRIES[request.param])
    clip.model.set_attn_implementation("eager")
    return clip.requires_grad_(False)


@pytest.fixture(params=[f"{blocks}-b{length}" for blocks in BLOCKS for length in LENGTHS])
def case(request: pytest.FixtureRequest, any_clip: Clip) -> Case:
    name, length = request.param.rsplit("-b", 1)
    blocks = range(len(any_clip.blocks))[BLOCKS[name]]
    prompts = RepulsivePrompts(blocks, int(length), any_clip.width, std=0.5)
    return Case(any_clip, prompts, random_pixels(3, any_clip.image_size))


def test_without_prompts_features_are_the_hugging_face_model_s(any_clip: Clip) -> None:
    pixels = random_pixels(3, any_clip.image_size)
    ids = any_clip.tokenize(["a red star.", "a picture of a small green anchor in the middle."])
    theirs = any_clip.model(input_ids=ids, pixel_values=reference.normalized(any_clip, pixels))
    assert_near(any_clip.encode_image(pixels), theirs.image_embeds)
    assert_near(any_clip.encode_tokens(ids), theirs.text_embeds)


def test_outputs_and_gradients(case: Case) -> None:
    clip, prompts, pixels = case
    tokens, frozen_rows = frozen_pass(clip, pixels, prompts.first_block)
    slow_tokens, slow_frozen_rows = reference.frozen(clip, pixels, prompts.first_block)
    assert_near(tokens, slow_tokens)
    assert_near(frozen_rows, slow_frozen_rows)
    image, rows = prompted_pass(clip, prompts, tokens)
    slow_image, slow_rows = reference.prompted(clip, prompts.blocks, prompts.table, pixels)
    assert_near(image, slow_image)
    assert_near(rows, slow_rows)
    # A random direction of all outputs: the gradient is held to account beyond what the losses use.
    weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(9)) for x in (image, rows)]
    (gradient,) = torch.autograd.grad((image * weights[0]).sum() + (rows * weights[1]).sum(), prompts.table)
    slow_loss = (slow_image * weights[0]).sum() + (slow_rows * weights[1]).sum()
    assert_near(gradient, torch.autograd.grad(slow_loss, prompts.table)[0])


@pytest.mark.parametrize("asked", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_with_products_of_their_own_for_prompts(asked: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, asked, 6), (2, 5, 6), (2, 5, 6), (4, 6), (4, 6)]
    given = [torch.randn(size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]
    values, gradients = [], []
    for way in (attend, attend_apart):
        query, key, value, *prefix = given
        values.append(way(query, key, value, (prefix[0], prefix[1]), 3, 0.7))
        gradients.append(torch.autograd.grad(values[-1].square().sum(), given))
    assert_near(values[1], values[0])
    for fast, slow in zip(gradients[1], gradients[0], strict=True):
        assert_near(fast, slow)


def test_cleaned_at_rest_has_the_prompted_features(case: Case) -> None:
    clip, prompts, pixels = case
    slow, _ = reference.prompted(clip, prompts.blocks, prompts.table, pixels)
    assert_near(Cleaned(clip, prompts).encode_image(pixels), slow)
    assert (slow - clip.encode_image(pixels)).abs().max() > 1e-3  # the prompts do something


def test_prompts_of_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RepulsivePrompts(range(2), 0, 8)


def test_prompts_follow_from_the_seed() -> None:
    first, again, other = (RepulsivePrompts(range(2), 3, 8, seed=seed).table for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 3, 8)
    assert RepulsivePrompts(range(40), 50, 80, std=0.5).table.std().item() == pytest.approx(0.5, rel=0.01)


def test_vit_b32_has_345600_parameters() -> None:
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):  # the geometry alone: CLIPConfig's defaults are ViT-B/32
        clip = Clip(CLIPModel(CLIPConfig()), tokenizer=None)
    assert RepulsivePrompts.for_model(clip, first_block=3, length=50).parameter_count() == 345_600


def test_constants_of_a_data_set_are_those_of_its_images(clip: Clip) -> None:
    data = memory_data(ENCODE_BATCH + 3)
    constants, picked = Constants(clip, data, 1), torch.tensor([ENCODE_BATCH + 1, 0, 5, ENCODE_BATCH - 1])
    expected = frozen_pass(clip, data.pixels(picked, clip.image_size), 1)
    for found, slow in zip(constants[picked], expected, strict=True):
        assert_near(found, slow)

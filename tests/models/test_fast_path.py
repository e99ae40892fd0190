"""The fast path agrees with its slow twins: outputs, both losses and the prompts' gradients, in float32 to 1e-5."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
from conftest import Factory
from helpers import random_pixels
from rvpt.augment import crop_flip
from rvpt.clip import Clip
from rvpt.config import RVPTSpec
from rvpt.data import ImageData
from rvpt.defenses.cleaned import Cleaned
from rvpt.defenses.tuning import PromptTuning, frozen
from rvpt.errors import RvptError
from rvpt.losses import feature_repelling, info_nce
from rvpt.prompts import RepulsivePrompts, frozen_pass, prompted_pass

GEOMETRIES = {
    "plain": {},
    "quick-gelu": {"activation": "quick_gelu"},
    "odd-heads": {"width": 30, "heads": 3, "text_width": 30, "activation": "quick_gelu"},
    "odd-patches": {"width": 21, "heads": 3, "text_width": 24, "image_size": 35, "patch_size": 7, "projection": 17},
    "one-patch-one-head": {"width": 13, "heads": 1, "text_width": 32, "image_size": 16, "blocks": 3},
}
BLOCKS = {
    "all": {"first_block": 0},
    "middle": {"first_block": 1},
    "last": {"depth": 1},
    "first-two": {"depth": 2, "depth_from": "input"},
}
LENGTHS = (1, 7)


class Case(NamedTuple):
    clip: Clip
    prompts: RepulsivePrompts
    pixels: Tensor


@pytest.fixture(params=GEOMETRIES)
def any_clip(request: pytest.FixtureRequest, make_clip: Factory) -> Clip:
    """Frozen, and with attention written out on the Hugging Face side: the twin shares no kernel with us."""
    clip = make_clip(seed=1, **GEOMETRIES[request.param])
    clip.model.set_attn_implementation("eager")
    return clip.requires_grad_(False)


@pytest.fixture(params=[f"{blocks}-b{length}" for blocks in BLOCKS for length in LENGTHS])
def case(request: pytest.FixtureRequest, any_clip: Clip) -> Case:
    name, length = request.param.rsplit("-b", 1)
    spec = RVPTSpec(length=int(length), init_std=0.5, **BLOCKS[name])
    prompts = RepulsivePrompts(spec.prompted(len(any_clip.blocks)), spec.length, any_clip.width, spec.init_std)
    return Case(any_clip, prompts, random_pixels(3, any_clip.image_size))


def assert_close(fast: Tensor, slow: Tensor, tolerance: float = 1e-5) -> None:
    """No entry differs by more than `tolerance` of the largest, so that small gradients are held to it too."""
    assert fast.shape == slow.shape
    largest = slow.abs().max().item()
    assert largest > 0
    assert (fast - slow).abs().max().item() <= tolerance * largest


def test_without_prompts_features_are_the_hugging_face_models(any_clip: Clip) -> None:
    pixels = random_pixels(3, any_clip.image_size)
    ids = any_clip.tokenize(["a red star.", "a picture of a small green anchor in the middle."])
    theirs = any_clip.model(input_ids=ids, pixel_values=reference.normalized(any_clip, pixels))
    assert_close(any_clip.encode_image(pixels), theirs.image_embeds)
    assert_close(any_clip.encode_tokens(ids), theirs.text_embeds)


def test_outputs_and_gradients(case: Case) -> None:
    clip, prompts, pixels = case
    tokens, frozen_rows = frozen_pass(clip, pixels, prompts.first_block)
    slow_tokens, slow_frozen_rows = reference.frozen(clip, pixels, prompts.first_block)
    assert_close(tokens, slow_tokens)
    assert_close(frozen_rows, slow_frozen_rows)
    image, rows = prompted_pass(clip, prompts, tokens)
    slow_image, slow_rows = reference.prompted(clip, prompts.blocks, prompts.table, pixels)
    assert_close(image, slow_image)
    assert_close(rows, slow_rows)
    # A random direction of all outputs: the gradient is held to account beyond what the losses use.
    weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(9)) for x in (image, rows)]
    (gradient,) = torch.autograd.grad((image * weights[0]).sum() + (rows * weights[1]).sum(), prompts.table)
    slow_loss = (slow_image * weights[0]).sum() + (slow_rows * weights[1]).sum()
    assert_close(gradient, torch.autograd.grad(slow_loss, prompts.table)[0])


def test_cleaned_at_rest_has_the_prompted_features(case: Case) -> None:
    clip, prompts, pixels = case
    slow, _ = reference.prompted(clip, prompts.blocks, prompts.table, pixels)
    assert_close(Cleaned(clip, prompts).encode_image(pixels), slow)
    assert (slow - clip.encode_image(pixels)).abs().max() > 1e-3  # the prompts do something


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("augment", ["none", "crop-flip"])
@pytest.mark.parametrize("margin", [-1.0, 0.9])
def test_a_step_of_prompt_tuning(
    blocks: str, augment: str, margin: float, make_clip: Factory, scenes: ImageData
) -> None:
    clip = make_clip(activation="quick_gelu", width=30, heads=3, text_width=30)
    spec = RVPTSpec(length=5, alpha=2.0, margin=margin, augment=augment, init_std=0.5, **BLOCKS[blocks])
    with frozen(clip):
        task = PromptTuning(clip, scenes, spec)
        picked, generator = torch.tensor([40, 3, 17, 4, 11]), torch.Generator().manual_seed(2)
        fast = task(picked, generator, 0.0)
        fast_gradient = torch.autograd.grad(fast["loss"], task.prompts.table)[0]
        pixels = scenes.pixels(picked, clip.image_size)
        if augment == "crop-flip":
            pixels = crop_flip(pixels, torch.Generator().manual_seed(2))
        text = clip.encode_text([spec.template.format(name) for name in scenes.classes])
        labels = scenes.labeled()[picked].tolist()
        slow = reference.losses(
            clip, task.prompts.blocks, task.prompts.table, pixels, text, labels, spec.alpha, spec.margin
        )
        slow_gradient = torch.autograd.grad(slow["loss"], task.prompts.table)[0]
    for name, value in slow.items():
        assert_close(fast[name], value)
    assert_close(fast_gradient, slow_gradient)


def test_a_prompt_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RepulsivePrompts(range(2), 0, 8)
    with pytest.raises(RvptError, match="length"):
        RVPTSpec.build(length=0)


def test_vit_b32_has_345600_parameters() -> None:
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):  # the geometry alone: CLIPConfig's defaults are ViT-B/32
        clip = Clip(CLIPModel(CLIPConfig()), tokenizer=None)
    assert RepulsivePrompts.for_model(clip, first_block=3, length=50).parameter_count() == 345_600


@pytest.mark.parametrize("margin", [-1.0, 0.2, 1.0])
def test_feature_repelling(margin: float) -> None:
    rows, still = torch.randn(2, 6, 3, 10, generator=torch.Generator().manual_seed(0))
    rows[0] = 0.6 * rows[0] + still[0]
    rows.requires_grad_(True)
    fast, slow = feature_repelling(rows, still, margin), reference.feature_repelling(rows, still, margin)
    assert_close(fast, slow)
    (gradient,) = torch.autograd.grad(fast, rows)
    if margin == 1.0:
        assert not gradient.any()
    else:
        assert_close(gradient, torch.autograd.grad(slow, rows)[0])


def test_with_margin_one_only_cross_entropy_moves_the_prompts(clip: Clip, scenes: ImageData) -> None:
    with frozen(clip):
        task = PromptTuning(clip, scenes, RVPTSpec(first_block=1, length=5, margin=1.0))
        values = task(torch.arange(6), torch.Generator(), 0.0)
        whole, ce, fr = (
            torch.autograd.grad(values[name], task.prompts.table, retain_graph=True)[0] for name in ("loss", "CE", "FR")
        )
    assert values["FR"].item() == 1.0
    assert not fr.any()
    assert torch.equal(whole, ce)


@settings(max_examples=25, deadline=None)
@given(captions=st.lists(st.integers(0, 4), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_info_nce(captions: list[int], seed: int) -> None:
    """captions[i] is what image i is called: images with equal captions share one column of the pairs."""
    unique = sorted(set(captions))
    pairs = torch.tensor([[name == text for text in unique] for name in captions])
    generator = torch.Generator().manual_seed(seed)
    image, text = unit_rows(len(captions), generator), unit_rows(len(unique), generator)
    for rows, columns, fits in ((image, text, pairs), (text, image, pairs.T)):
        slow = reference.info_nce(rows, columns, 5.0, fits.tolist())
        assert_same_loss(info_nce(rows, columns, 5.0, fits), slow, image, text)
    if len(unique) == len(captions):
        slow = reference.info_nce(image, text, 5.0, torch.eye(len(image), dtype=torch.bool).tolist())
        assert_same_loss(info_nce(image, text, 5.0), slow, image, text)


def unit_rows(count: int, generator: torch.Generator) -> Tensor:
    rows = torch.randn(count, 7, generator=generator, dtype=torch.float64)
    return (rows / rows.norm(dim=-1, keepdim=True)).requires_grad_(True)


def assert_same_loss(fast: Tensor, slow: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    gradients = torch.autograd.grad(fast, inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad(slow, inputs), rtol=1e-9, atol=1e-12)

"""Names of weights: those of OpenAI's CLIP and of open_clip become those of transformers' CLIPModel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from torch import Tensor

from rvpt.models.formats.weights import Stored, Weights

PARTS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)(?:[._](weight|bias))?")


def from_openai(weights: Weights) -> dict[str, Stored]:
    """Weights by the names of CLIPModel, from OpenAI's names; other names stay."""
    return {key: value for old, stored in weights.items() for key, value in _renamed(old, stored)}


def _renamed(old: str, stored: Stored) -> Iterator[tuple[str, Stored]]:
    """The weights of CLIPModel that come from one of OpenAI's."""
    old = old.removeprefix("text.")  # open_clip's CLIPs with a custom text tower
    if old in PARTS:
        yield PARTS[old], stored
    elif old in ("visual.proj", "text_projection") and len(stored.shape) == 2:
        new = "visual_projection" if old == "visual.proj" else "text_projection"
        yield f"{new}.weight", stored.changed(stored.shape[::-1], lambda value: value.T)
    elif old == "logit_scale" and stored.shape == (1,):
        yield old, stored.changed((), lambda value: value[0])
    elif match := BLOCK.fullmatch(old):
        yield from _block(match, old, stored)
    else:
        yield old, stored


def _block(match: re.Match[str], old: str, stored: Stored) -> Iterator[tuple[str, Stored]]:
    vision, number, part, kind = match.groups()
    layer = f"{'vision' if vision else 'text'}_model.encoder.layers.{number}"
    if part == "attn.in_proj" and stored.shape and stored.shape[0] % 3 == 0:
        third = stored.shape[0] // 3
        for place, letter in enumerate("qkv"):
            cut = partial(_rows, start=place * third, stop=(place + 1) * third)
            yield f"{layer}.self_attn.{letter}_proj.{kind}", stored.changed((third, *stored.shape[1:]), cut)
    elif part in LAYER:
        yield f"{layer}.{LAYER[part]}.{kind}", stored
    else:
        yield old, stored


def _rows(value: Tensor, start: int, stop: int) -> Tensor:
    return value[start:stop]

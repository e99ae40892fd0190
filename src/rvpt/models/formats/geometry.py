"""A CLIP's geometry, read from the shapes of its weights."""

from __future__ import annotations

import math
import re
from typing import Any

from rvpt.errors import RvptError
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.weights import Weights

HEADS = {1280: 16, 1408: 16, 1664: 16, 1792: 16}
"""Heads of image towers by width where they do not have 64 values each: open_clip's ViT-H, g, bigG and e."""
LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.")
MAX_LAYERS, MAX_SIDE, MAX_WIDTH = 256, 4096, 2**17


def read_geometry(weights: Weights, name: str) -> dict[str, Any]:
    """The configuration of a CLIPModel with these weights; activation and tokens are not in them.

    Raises:
        RvptError: shapes are missing, or not those of a ViT CLIP.
    """
    positions, width = _shape(weights, "vision_model.embeddings.position_embedding.weight", 2, name)
    patch = _shape(weights, "vision_model.embeddings.patch_embedding.weight", 4, name)[-1]
    vocabulary, text_width = _shape(weights, "text_model.embeddings.token_embedding.weight", 2, name)
    side = math.isqrt(max(positions - 1, 0))
    if side * side != positions - 1 or not side:
        raise RvptError(f"{name}: {positions} positions of image patches are not a square and one more: not a ViT CLIP")
    vision = {"image_size": side * patch, "patch_size": patch, "num_attention_heads": HEADS.get(width) or _heads(width)}
    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": _shape(weights, "text_model.embeddings.position_embedding.weight", 2, name)[0],
        "num_attention_heads": _heads(text_width),
    }
    return {
        "vision_config": {**vision, **_tower(weights, "vision", width, name)},
        "text_config": {**text, **_tower(weights, "text", text_width, name)},
        "projection_dim": _shape(weights, "visual_projection.weight", 2, name)[0],
    }


def _heads(width: int) -> int:
    return max(width // 64, 1)


def _tower(weights: Weights, tower: str, width: int, name: str) -> dict[str, int]:
    hidden = _shape(weights, f"{tower}_model.encoder.layers.0.mlp.fc1.weight", 2, name)[0]
    return {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": count_layers(weights, tower)}


def count_layers(weights: Weights, tower: str) -> int:
    """How many blocks of a tower ("vision", "text") there are weights of."""
    return len({match[2] for key in weights if (match := LAYER.match(key)) and match[1] == tower})


def refuse_absurd(config: Any, name: str) -> None:
    """Refuse a configuration whose model would be far larger than any CLIP, before it is built.

    Raises:
        RvptError: it would.
    """
    for tower, found in (("vision", config.vision_config), ("text", config.text_config)):
        if found.num_hidden_layers > MAX_LAYERS or found.hidden_size > MAX_WIDTH or found.intermediate_size > MAX_WIDTH:
            raise RvptError(
                f"{name}: its {tower} tower is said to have {found.num_hidden_layers} blocks of width "
                f"{found.hidden_size}: more than any CLIP"
            )
    if (side := config.vision_config.image_size) > MAX_SIDE:
        raise RvptError(f"{name}: images of side {side} are larger than any CLIP's")


def _shape(weights: Weights, key: str, dimensions: int, name: str) -> tuple[int, ...]:
    if key not in weights:
        raise RvptError(f"{name}: {key} is missing: not all of a ViT CLIP's weights are there; {LISTED}")
    shape = weights[key].shape
    if len(shape) != dimensions or 0 in shape:
        raise RvptError(f"{name}: {key} has the shape {shape}: not a ViT CLIP")
    return shape

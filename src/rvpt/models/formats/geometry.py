"""A CLIP's geometry, read from the shapes of its weights."""

from __future__ import annotations

import math
import re
from typing import Any

from rvpt.errors import RvptError
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.weights import Weights

HEADS = {1152: 16, 1280: 16, 1408: 16, 1536: 16, 1664: 16, 1792: 16}
"""Heads by width where they do not have 64 values: open_clip's ViT-H, g, bigG and e, SigLIP's so400m and gopt."""
SO400M = 1152  # the width of both towers of SigLIP's so400m, whose heads have 72 values
LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.")
MAX_LAYERS, MAX_SIDE, MAX_WIDTH, MAX_SIZE = 256, 4096, 2**17, 2**48
SIZES = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    "num_channels", "vocab_size", "max_position_embeddings",
}  # fmt: skip
"""What is a whole number above 0."""


def vision_geometry(weights: Weights, name: str, extra: int) -> dict[str, int]:
    """The sizes of a ViT; `extra` positions belong to no patch.

    Raises:
        RvptError: shapes are missing, or not those of a ViT.
    """
    positions, width = shape_of(weights, "vision_model.embeddings.position_embedding.weight", 2, name)
    patch = shape_of(weights, "vision_model.embeddings.patch_embedding.weight", 4, name)[-1]
    side = math.isqrt(max(positions - extra, 0))
    if side * side != positions - extra or not side:
        more = " and one more" if extra else ""
        raise RvptError(f"{name}: {positions} positions of image patches are not a square{more}: not a ViT CLIP")
    found = {"image_size": side * patch, "patch_size": patch, "num_attention_heads": HEADS.get(width) or _heads(width)}
    return {**found, **_tower(weights, "vision", width, name)}


def text_geometry(weights: Weights, name: str, projection: str) -> dict[str, Any]:
    """The sizes of a text tower, and those of features, which are the first side of a weight called `projection`.

    Raises:
        RvptError: shapes are missing, or not those of a text tower.
    """
    vocabulary, width = shape_of(weights, "text_model.embeddings.token_embedding.weight", 2, name)
    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": shape_of(weights, "text_model.embeddings.position_embedding.weight", 2, name)[0],
        "num_attention_heads": 16 if width == SO400M else _heads(width),
        **_tower(weights, "text", width, name),
    }
    return {"text_config": text, "projection_dim": shape_of(weights, projection, 2, name)[0]}


def _heads(width: int) -> int:
    return max(width // 64, 1)


def _tower(weights: Weights, tower: str, width: int, name: str) -> dict[str, int]:
    hidden = shape_of(weights, f"{tower}_model.encoder.layers.0.mlp.fc1.weight", 2, name)[0]
    return {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": count_layers(weights, tower)}


def count_layers(weights: Weights, tower: str) -> int:
    """How many blocks of a tower ("vision", "text") there are weights of."""
    return len({match[2] for key in weights if (match := LAYER.match(key)) and match[1] == tower})


def refuse_absurd(facts: dict[str, Any], name: str) -> None:
    """Refuse a configuration whose model would be far larger than any CLIP, before it is built.

    Raises:
        RvptError: it would.
    """
    for tower in ("vision", "text"):
        found = facts[f"{tower}_config"]
        for key in SIZES & found.keys():
            if type(found[key]) is not int or not 0 < found[key] < MAX_SIZE:
                raise RvptError(f"{name}: could not use its config ({tower}_config has {key}={repr(found[key])[:80]})")
        layers, width, inner = (found.get(key, 1) for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
        if _above(layers, MAX_LAYERS) or _above(width, MAX_WIDTH) or _above(inner, MAX_WIDTH):
            raise RvptError(
                f"{name}: its {tower} tower is said to have {layers} blocks of width {width}: more than any CLIP"
            )
    if _above(length := facts["text_config"].get("max_position_embeddings", 1), MAX_SIDE):
        raise RvptError(f"{name}: texts of {length} tokens are longer than any CLIP's")
    if _above(side := facts["vision_config"].get("image_size", 1), MAX_SIDE):
        raise RvptError(f"{name}: images of side {side} are larger than any CLIP's")


def _above(value: Any, most: int) -> bool:
    return isinstance(value, int | float) and value > most


def shape_of(weights: Weights, key: str, dimensions: int, name: str) -> tuple[int, ...]:
    """The shape of a weight.

    Raises:
        RvptError: it is missing, or has another number of dimensions.
    """
    if key not in weights:
        raise RvptError(f"{name}: {key} is missing: not all of a CLIP's weights are there; {LISTED}")
    shape = weights[key].shape
    if len(shape) != dimensions or 0 in shape:
        raise RvptError(f"{name}: {key} has the shape {shape}: not a CLIP")
    return shape

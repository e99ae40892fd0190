"""SigLIPs: transformers' SiglipModel, and those of open_clip, whose image tower is one of timm's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rvpt.errors import RvptError
from rvpt.models.formats.families.base import TEXT, TOWER, Family
from rvpt.models.formats.geometry import text_geometry, vision_geometry
from rvpt.models.formats.preprocessing import SIGLIP as PREPROCESSING
from rvpt.models.formats.state_dict import from_openai
from rvpt.models.formats.weights import Stored, Weights

TIMM, TRANSFORMERS = "visual.trunk.attn_pool.latent", "vision_model.head.probe"
PARTS = {
    "patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm",
    "attn_pool.proj": "head.attention.out_proj", "attn_pool.norm": "head.layernorm",
    "attn_pool.mlp.fc1": "head.mlp.fc1", "attn_pool.mlp.fc2": "head.mlp.fc2",
}  # fmt: skip
LAYER = {
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}  # fmt: skip
"""Names of timm's ViTs and of transformers', in the tower and in a block."""


class Siglip(Family):
    """SiglipModel."""

    summary = "a SigLIP"
    anchors = (TIMM, TRANSFORMERS)
    activations = ("gelu_pytorch_tanh", "gelu", "quick_gelu")
    towers = {
        "vision_config": (*TOWER, "image_size", "patch_size", "num_channels", "vision_use_head"),
        "text_config": (*TEXT, "projection_size"),
    }
    end = False
    preprocessing = PREPROCESSING

    def renamed(self, weights: Weights, anchor: str) -> dict[str, Stored]:
        if anchor == TRANSFORMERS:
            return dict(weights)
        trunk = "visual.trunk."
        tower = {key.removeprefix(trunk): value for key, value in weights.items() if key.startswith(trunk)}
        rest = {key: value for key, value in weights.items() if not key.startswith(trunk)}
        text = {_text_name(key): _as_vector(key, value) for key, value in from_openai(rest).items()}
        return {**{f"vision_model.{key}": value for key, value in _tower(tower).items()}, **text}

    def geometry(self, weights: Weights, name: str) -> dict[str, Any]:
        facts = text_geometry(weights, name, "text_model.head.weight")
        size = facts.pop("projection_dim")
        text = {**facts["text_config"], "projection_size": size, "layer_norm_eps": 1e-6}
        return {"vision_config": vision_geometry(weights, name, extra=0), "text_config": text}

    def config(self, facts: Mapping[str, Any]) -> Any:
        from transformers import SiglipConfig, SiglipTextConfig, SiglipVisionConfig

        text, vision = SiglipTextConfig(**facts["text_config"]), SiglipVisionConfig(**facts["vision_config"])
        if text.projection_size != vision.hidden_size or not vision.vision_use_head:
            raise RvptError(
                f"its image features have {vision.hidden_size} numbers and its text features {text.projection_size}, "
                "or its image tower has no head"
            )
        return SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())

    def make(self, config: Any) -> Any:
        from transformers import SiglipModel

        return SiglipModel(config)

    def image_size(self, config: Any) -> int:
        return int(config.vision_config.image_size)


SIGLIP = Siglip()


def _text_name(key: str) -> str:
    return key.replace("text_projection.", "text_model.head.")


def _as_vector(key: str, value: Stored) -> Stored:
    """transformers keeps scale and bias of the logits as vectors of one number."""
    if key not in ("logit_scale", "logit_bias") or value.shape:
        return value
    return value.changed((1,), lambda number: number.reshape(1))


def _tower(weights: Weights) -> dict[str, Stored]:
    """timm's image tower by transformers' names; other names stay, and are refused later."""
    found: dict[str, Stored] = {}
    for key, value in weights.items():
        path, _, kind = key.rpartition(".")
        words = path.split(".")
        if key == "pos_embed":
            found["embeddings.position_embedding.weight"] = value.changed(value.shape[1:], lambda whole: whole[0])
        elif key == "attn_pool.latent":
            found["head.probe"] = value
        elif path == "attn_pool.q" and f"attn_pool.kv.{kind}" in weights:
            found[f"head.attention.in_proj_{kind}"] = _joined(value, weights[f"attn_pool.kv.{kind}"])
        elif path in PARTS:
            found[f"{PARTS[path]}.{kind}"] = value
        elif words[0] == "blocks" and (inner := ".".join(words[2:])) in LAYER:
            found[f"encoder.layers.{words[1]}.{LAYER[inner]}.{kind}"] = value
        elif words[0] == "blocks" and inner == "attn.qkv" and value.shape and value.shape[0] % 3 == 0:
            for place, letter in enumerate("qkv"):
                part = value.changed((value.shape[0] // 3, *value.shape[1:]), partial(_third, place=place))
                found[f"encoder.layers.{words[1]}.self_attn.{letter}_proj.{kind}"] = part
        elif path != "attn_pool.kv":
            found[key] = value
    return found


def _third(whole: Tensor, place: int) -> Tensor:
    return whole.chunk(3)[place]


def _joined(query: Stored, rest: Stored) -> Stored:
    shape = (query.shape[0] + rest.shape[0], *query.shape[1:]) if query.shape and rest.shape else query.shape
    return Stored(query.dtype, shape, lambda: torch.cat([query.read(), rest.read()]))

"""Writing open_clip's layout: open_clip_config.json and open_clip_model.safetensors, by OpenAI's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.files import write_json
from rvpt.models.formats.open_clip import CONFIG, WEIGHTS
from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.formats.state_dict import LAYER, PARTS
from rvpt.models.formats.write_preprocessing import as_open_clip
from rvpt.tensors import write_tensors

NAMES = {new: old for old, new in PARTS.items()}
PARTS_OF_BLOCKS = {new: old for old, new in LAYER.items()}
BLOCK = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def write_open_clip(model: Any, folder: Path, preprocessing: Preprocessing) -> None:
    """Write a ResNetModel as `open_clip.create_model("local-dir:FOLDER")` reads it."""
    config, text = model.config, model.config.text_config
    facts = {
        "embed_dim": config.projection_dim,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": config.image_size, "layers": list(config.layers), "width": config.width,
            "head_width": config.embedding // config.heads, "patch_size": None,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings, "vocab_size": text.vocab_size, "width": text.hidden_size,
            "heads": text.num_attention_heads, "layers": text.num_hidden_layers,
        },
    }  # fmt: skip
    write_json(folder / CONFIG, {"model_cfg": facts, "preprocess_cfg": as_open_clip(preprocessing)})
    write_tensors(folder / WEIGHTS[0], to_openai(model.state_dict()))


def to_openai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by OpenAI's names, the inverse of `to_transformers`; other names stay."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = BLOCK.fullmatch(name)
        if name == "text_projection.weight":
            found["text_projection"] = value.T
        elif name == "visual_projection.weight":
            found["visual.proj"] = value.T
        elif match and match[3].startswith("self_attn.") and match[3] != "self_attn.out_proj":
            if match[3] == "self_attn.q_proj":
                parts = [weights[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
                found[_block(match, f"attn.in_proj_{match[4]}")] = torch.cat(parts)
        elif match:
            found[_block(match, f"{PARTS_OF_BLOCKS[match[3]]}.{match[4]}")] = value
        else:
            found[NAMES.get(name, name)] = value
    return {name: value.detach().cpu().contiguous() for name, value in found.items()}


def _block(match: re.Match[str], part: str) -> str:
    return f"{'visual.' if match[1] == 'vision' else ''}transformer.resblocks.{match[2]}.{part}"

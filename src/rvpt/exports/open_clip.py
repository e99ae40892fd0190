"""A folder of open_clip: open_clip_config.json and weights by OpenAI's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpt.errors import RvptError
from rvpt.exports import cards
from rvpt.exports.state_dicts import StateDict
from rvpt.files import write_json
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.formats.open_clip import CONFIG, WEIGHTS
from rvpt.models.formats.tokenizers import WORDS
from rvpt.models.formats.write_open_clip import to_openai, write_open_clip
from rvpt.models.formats.write_preprocessing import as_open_clip
from rvpt.models.quiet import quiet_transformers
from rvpt.tensors import write_tensors

EPS = 1e-5  # of open_clip's norms, unless they say otherwise


class OpenClip(StateDict):
    """open_clip_config.json, open_clip_model.safetensors and the tokenizer."""

    name = "openclip"
    summary = "a folder of open_clip, of models with weights of their own"
    classes = ("CLIPModel", "ResNetModel")

    def refuse(self, model: Clip | Cleaned) -> None:
        super().refuse(model)
        size, resized = clip_of(model).image_size, clip_of(model).resizing.resized
        if resized not in (None, size):
            raise RvptError(
                f"{model.name} resizes images to {resized} and crops them to {size}, which open_clip_config.json "
                "cannot say: use to=onnx or torch (or hf, for a ViT)"
            )

    def write(self, model: Clip | Cleaned, folder: Path) -> dict[str, Any]:
        clip = clip_of(model)
        if type(clip.model).__name__ == "CLIPModel":
            write_tensors(folder / WEIGHTS[0], to_openai(clip.model.state_dict()))
            write_json(folder / CONFIG, config_of(clip))
        else:
            write_open_clip(clip.model, folder, clip.preprocessing)
        with quiet_transformers():
            clip.tokenizer.save_pretrained(folder)
        return {"own_tokenizer": clip.model.config.text_config.vocab_size != WORDS}

    def card(self, facts: Mapping[str, Any]) -> str:
        return cards.OPEN_CLIP.format(tokenizer=cards.OWN_TOKENIZER if facts["own_tokenizer"] else "")


OPEN_CLIP = OpenClip()


def config_of(clip: Clip) -> dict[str, Any]:
    """The contents of open_clip_config.json."""
    config, text = clip.model.config, clip.model.config.text_config
    vision = config.vision_config
    return {
        "model_cfg": {
            "embed_dim": config.projection_dim,
            "quick_gelu": clip.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "head_width": vision.hidden_size // vision.num_attention_heads,
                **_tower(vision),
            },
            "text_cfg": {
                "context_length": text.max_position_embeddings,
                "vocab_size": text.vocab_size,
                "heads": text.num_attention_heads,
                **_tower(text),
            },
        },
        "preprocess_cfg": as_open_clip(clip.preprocessing),
    }


def _tower(tower: Any) -> dict[str, Any]:
    norm = {} if tower.layer_norm_eps == EPS else {"norm_kwargs": {"eps": tower.layer_norm_eps}}
    ratio = mlp_ratio(tower.hidden_size, tower.intermediate_size)
    return {"layers": tower.num_hidden_layers, "width": tower.hidden_size, "mlp_ratio": ratio, **norm}


def mlp_ratio(width: int, hidden: int) -> float:
    """A ratio r with int(width * r) == hidden, which is how open_clip reads it."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)

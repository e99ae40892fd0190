"""open_clip's folders: open_clip_config.json, and weights as safetensors or as a file of PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpt.errors import RvptError
from rvpt.files import read_json
from rvpt.models.formats.base import Parts
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.preprocessing import Preprocessing, from_open_clip
from rvpt.models.formats.weights import PICKLES, SAFETENSORS, read_weights

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin")
FREE = {"patch_dropout", "output_tokens", "pos_embed_type", "head_width", "heads", "mlp_ratio", "norm_kwargs"}
"""Settings of a tower that leave its features as they are, are read below, or are seen in the weights."""
VISION: dict[str, Any] = {
    "ls_init_value": None, "attentional_pool": False, "attn_pooler_queries": 256, "attn_pooler_heads": 8,
    "no_ln_pre": False, "final_ln_after_pool": False, "pool_type": "tok", "act_kwargs": None, "block_type": None,
    "qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False, "scale_attn_inner": False,
    "scale_attn": False, "scale_fc": False, "timm_model_name": None, "timm_model_pretrained": False,
    "timm_pool": "avg", "timm_proj": "linear", "timm_proj_bias": False, "timm_drop": 0.0, "timm_drop_path": None,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hf_model_name": None, "hf_model_pretrained": True, "hf_tokenizer_name": None, "tokenizer_mode": None,
    "tokenizer_kwargs": None, "ls_init_value": None, "embed_cls": False, "pad_id": 0, "no_causal_mask": False,
    "final_ln_after_pool": False, "pool_type": "argmax", "proj_bias": False, "proj_type": "linear",
    "act_kwargs": None, "block_type": None, "qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False,
    "scale_attn_inner": False, "scale_attn": False, "scale_fc": False, "eos_id": 2,
}  # fmt: skip
"""Settings that a CLIPModel cannot have, with the values that say that the model does without."""
MODEL: dict[str, Any] = {"init_logit_bias": None, "multimodal_cfg": None, "nonscalar_logit_scale": False}
SIZES = {
    "layers": "num_hidden_layers", "width": "hidden_size", "patch_size": "patch_size", "image_size": "image_size",
    "context_length": "max_position_embeddings", "vocab_size": "vocab_size",
}  # fmt: skip
"""Sizes by open_clip's names and by transformers'."""


class OpenClip:
    """The layout of open_clip's folders."""

    def recognizes(self, source: str, path: Path) -> bool:
        return path.is_dir() and (path / CONFIG).is_file()

    def open(self, source: str, path: Path) -> Parts:
        """The parts in a folder.

        Raises:
            RvptError: as `Layout.open`.
        """
        config, preprocessing = read_config(path / CONFIG, source)
        file = next((path / name for name in WEIGHTS if (path / name).is_file()), None) or _only(path)
        if file is None:
            raise RvptError(f"{source} has no weights: {WEIGHTS[0]} or {WEIGHTS[2]} is missing; {LISTED}")
        files = {file: read_weights(file, source)}
        return Parts("a folder of open_clip", files, config, folder=path, preprocessing=preprocessing)


OPEN_CLIP = OpenClip()


def _only(folder: Path) -> Path | None:
    """The folder's only file of weights."""
    files = [file for file in folder.iterdir() if file.suffix in (SAFETENSORS, *PICKLES)]
    return files[0] if len(files) == 1 else None


def read_config(path: Path, name: str) -> tuple[dict[str, Any], Preprocessing]:
    """What an open_clip_config.json states, in transformers' keys, and the preprocessing.

    Raises:
        RvptError: it is damaged, or the model is not one that a CLIPModel can be.
    """
    facts = read_json(path)
    if not isinstance(facts, Mapping) or not isinstance(facts.get("model_cfg"), Mapping):
        raise RvptError(f"{name}: {path.name} has no model_cfg: download it again")
    return from_model(facts["model_cfg"], name), from_open_clip(facts.get("preprocess_cfg"), f"{name}: {path.name}")


def from_model(model: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The `model_cfg` of open_clip in transformers' keys: what the shapes of weights do not show.

    Raises:
        RvptError: the model is not one that a CLIPModel can be.
    """
    vision, text = model.get("vision_cfg"), model.get("text_cfg")
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
        raise RvptError(f"{name}: its configuration has no vision_cfg and text_cfg: is it a CLIP of open_clip?")
    if isinstance(vision.get("layers"), list):
        raise RvptError(f"{name} is a ResNet CLIP, which is not supported: only ViT CLIPs are; {LISTED}")
    _refuse_settings(model, MODEL, set(model) - MODEL.keys(), name)
    _refuse_settings(vision, VISION, SIZES.keys() | FREE, name)
    _refuse_settings(text, TEXT, SIZES.keys() | FREE, name)
    act = {"hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    heads = _number(vision, "width", 768, name) // _number(vision, "head_width", 64, name)
    return {
        "vision_config": {**act, **_sizes(vision, name), "num_attention_heads": max(heads, 1)},
        "text_config": {**act, **_sizes(text, name), "num_attention_heads": _number(text, "heads", 8, name)},
    }


def _refuse_settings(found: Mapping[str, Any], known: Mapping[str, Any], free: set[str], name: str) -> None:
    for key, value in found.items():
        if key not in free and not (key in known and (value == known[key] or not value)):
            raise RvptError(
                f"{name}: open_clip's setting {key}={value!r} is not supported: only plain ViT CLIPs are; {LISTED}"
            )


def _number(found: Mapping[str, Any], key: str, default: int, name: str) -> int:
    value = found.get(key, default)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:  # (height, width)
        value = value[0]
    if type(value) is not int or not 0 < value < 2**20:
        raise RvptError(f"{name}: open_clip's setting {key}={value!r} is not a size")
    return value


def _sizes(tower: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The sizes that a configuration states; those that it leaves out are seen in the weights."""
    found = {new: _number(tower, key, 0, name) for key, new in SIZES.items() if key in tower}
    return {**found, **_eps(tower, name)}


def _eps(tower: Mapping[str, Any], name: str) -> dict[str, float]:
    norm = tower.get("norm_kwargs") or {}
    if not isinstance(norm, Mapping) or norm.keys() - {"eps"}:
        raise RvptError(f"{name}: open_clip's setting norm_kwargs={norm!r} is not supported")
    return {"layer_norm_eps": norm["eps"]} if norm else {}

"""open_clip's folders: open_clip_config.json, and weights as safetensors or as a file of PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rvpt.errors import RvptError
from rvpt.files import read_json
from rvpt.models.formats.base import Parts
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.preprocessing import SIGLIP as SIGLIP_PREPROCESSING
from rvpt.models.formats.preprocessing import Preprocessing, from_open_clip
from rvpt.models.formats.weights import PICKLES, SAFETENSORS, WeightFile, read_weights

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


SIGLIP_VISION = {**VISION, "timm_pool": "map", "timm_proj": "none"}
SIGLIP_TEXT = {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
"""Settings of a SigLIP, which it must have."""
TIMM = re.compile(r"vit_\w+_siglip_\d+")
TANH = re.compile(r"vit_(base_patch32_siglip_256|large_patch16_siglip_512|so400m_patch16_siglip_\d+|giantopt_\w+)")
"""SigLIPs of timm: all, and those whose activation is the approximation of GELU by tanh."""


class Stated(NamedTuple):
    """What a `model_cfg` says, in transformers' keys, and the preprocessing where none is stated."""

    config: dict[str, Any]
    tokenizer: str | None = None
    cleaning: str | None = None
    preprocessing: Preprocessing = Preprocessing()


class OpenClip:
    """The layout of open_clip's folders."""

    def recognizes(self, source: str, path: Path) -> bool:
        return path.is_dir() and (path / CONFIG).is_file()

    def open(self, source: str, path: Path) -> Parts:
        """The parts in a folder.

        Raises:
            RvptError: as `Layout.open`.
        """
        stated, preprocessing = read_config(path / CONFIG, source)
        file = next((path / name for name in WEIGHTS if (path / name).is_file()), None) or _only(path)
        if file is None:
            raise RvptError(f"{source} has no weights: {WEIGHTS[0]} or {WEIGHTS[2]} is missing; {LISTED}")
        files = {file: read_weights(file, source)}
        return parts("a folder of open_clip", files, stated, preprocessing, path)


OPEN_CLIP = OpenClip()


def _only(folder: Path) -> Path | None:
    """The folder's only file of weights."""
    files = [file for file in folder.iterdir() if file.suffix in (SAFETENSORS, *PICKLES)]
    return files[0] if len(files) == 1 else None


def parts(
    layout: str, files: Mapping[Path, WeightFile], stated: Stated, preprocessing: Preprocessing, folder: Path | None
) -> Parts:
    """Parts of what open_clip's configuration states."""
    config, tokenizer, cleaning, _ = stated
    return Parts(
        layout, files, config, folder=folder, tokenizer=tokenizer, cleaning=cleaning, preprocessing=preprocessing
    )


def read_config(path: Path, name: str) -> tuple[Stated, Preprocessing]:
    """What an open_clip_config.json states of a model, and of its preprocessing.

    Raises:
        RvptError: it is damaged, or the model is not one that is supported.
    """
    facts = read_json(path)
    if not isinstance(facts, Mapping) or not isinstance(facts.get("model_cfg"), Mapping):
        raise RvptError(f"{name}: {path.name} has no model_cfg: download it again")
    stated = from_model(facts["model_cfg"], name)
    return stated, from_open_clip(facts.get("preprocess_cfg"), f"{name}: {path.name}", stated.preprocessing)


def from_model(model: Mapping[str, Any], name: str) -> Stated:
    """The `model_cfg` of open_clip: what the shapes of weights do not show.

    Raises:
        RvptError: the model is not one that is supported.
    """
    vision, text = model.get("vision_cfg"), model.get("text_cfg")
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
        raise RvptError(f"{name}: its configuration has no vision_cfg and text_cfg: is it a CLIP of open_clip?")
    if isinstance(timm := vision.get("timm_model_name"), str) and TIMM.fullmatch(timm):
        return _siglip(model, vision, text, timm, name)
    _refuse_settings(model, MODEL, set(model) - MODEL.keys(), name)
    _refuse_settings(vision, VISION, SIZES.keys() | FREE, name)
    _refuse_settings(text, TEXT, SIZES.keys() | FREE, name)
    act = {"hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    written = {**act, **_sizes(text, name), "num_attention_heads": _number(text, "heads", 8, name)}
    if isinstance(vision.get("layers"), list):
        return Stated({"vision_config": _resnet(vision, name), "text_config": written})
    heads = _number(vision, "width", 768, name) // _number(vision, "head_width", 64, name)
    seen = {**act, **_sizes(vision, name), "num_attention_heads": max(heads, 1)}
    return Stated({"vision_config": seen, "text_config": written})


def _resnet(vision: Mapping[str, Any], name: str) -> dict[str, int]:
    """Image size and heads of a ResNet; its other sizes are seen in the weights."""
    heads = 32 * _number(vision, "width", 64, name) // _number(vision, "head_width", 64, name)
    return {"image_size": _number(vision, "image_size", 224, name), "num_attention_heads": max(heads, 1)}


def _siglip(
    model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any], timm: str, name: str
) -> Stated:
    """A SigLIP, whose image tower is known by timm's name."""
    free = SIZES.keys() | FREE
    _refuse_settings(model, MODEL, (set(model) - MODEL.keys()) | {"init_logit_bias"}, name)
    _refuse_settings(vision, SIGLIP_VISION, free | {"timm_model_name"}, name)
    _refuse_settings(text, SIGLIP_TEXT, free | {"hf_tokenizer_name", "tokenizer_kwargs", "act_kwargs"}, name)
    for tower, needed in ((vision, ("timm_pool",)), (text, ("no_causal_mask", "proj_bias", "pool_type"))):
        for key in needed:
            if not tower.get(key):
                raise _unsupported(key, tower.get(key), name)
    act, kwargs = text.get("act_kwargs") or {}, text.get("tokenizer_kwargs") or {}
    if act not in ({}, {"approximate": "tanh"}, {"approximate": "none"}):
        raise _unsupported("act_kwargs", act, name)
    if not isinstance(kwargs, Mapping) or kwargs.keys() - {"clean"}:
        raise _unsupported("tokenizer_kwargs", kwargs, name)
    tanh = "gelu_pytorch_tanh" if act.get("approximate") == "tanh" else "gelu"
    written = {**_sizes(text, name), "num_attention_heads": _number(text, "heads", 8, name), "hidden_act": tanh}
    seen = {**_sizes(vision, name), "hidden_act": "gelu_pytorch_tanh" if TANH.fullmatch(timm) else "gelu"}
    tokenizer = text.get("hf_tokenizer_name")
    return Stated(
        {"vision_config": seen, "text_config": {"layer_norm_eps": 1e-5, **written}},
        tokenizer if isinstance(tokenizer, str) else None,
        str(kwargs.get("clean", "whitespace")), SIGLIP_PREPROCESSING,
    )  # fmt: skip


def _refuse_settings(found: Mapping[str, Any], known: Mapping[str, Any], free: set[str], name: str) -> None:
    """Refuse settings that are unknown, or have another value than the known one or none."""
    for key, value in found.items():
        if key not in free and not (key in known and (value == known[key] or not value)):
            raise _unsupported(key, value, name)


def _unsupported(key: str, value: Any, name: str) -> RvptError:
    return RvptError(
        f"{name}: open_clip's setting {key}={repr(value)[:80]} is not supported: only plain ViT CLIPs, ResNet CLIPs "
        f"and SigLIPs are; {LISTED}"
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

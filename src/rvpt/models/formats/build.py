"""A Clip from its parts: names, geometry, tokenizer and weights are checked against each other, then read."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rvpt.errors import RvptError, first_line
from rvpt.models.clip import Clip
from rvpt.models.formats.base import Parts
from rvpt.models.formats.checks import refuse_unfit_tokenizer, refuse_wrong_end
from rvpt.models.formats.geometry import read_geometry, refuse_absurd
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.preprocessing import Preprocessing, refuse_other_size
from rvpt.models.formats.state_dict import to_transformers
from rvpt.models.formats.tokenizers import find_tokenizer
from rvpt.models.formats.weights import FLOATING, Stored
from rvpt.models.quiet import quiet_transformers

MAX_PARAMETERS = 6_000_000_000  # more than twice as many as the largest of open_clip
ACTIVATIONS = ("quick_gelu", "gelu")
TOWER = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps",
    "projection_dim",
)  # fmt: skip
TOWERS = {
    "vision_config": (*TOWER, "image_size", "patch_size", "num_channels"),
    "text_config": (*TOWER, "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
}
"""What is read of a configuration; other keys could, for example, name code to be downloaded."""
logger = logging.getLogger("rvpt")


def build(parts: Parts, name: str, *, activation: str | None = None) -> Clip:
    """The Clip that parts make, in float32 on the CPU.

    Args:
        parts: as a layout found them.
        name: what messages call the model.
        activation: of the model, quick_gelu or gelu, where no configuration states it.

    Raises:
        RvptError: they do not fit each other; the message says which do not.
    """
    _warn_of_code(parts, name)
    weights, _ = to_transformers(parts.weights, name)
    config = _config(parts, weights, name, activation)
    refuse_absurd(config, name)
    tokenizer = find_tokenizer(parts.folder, config.text_config.vocab_size, name, required=parts.whole)
    refuse_unfit_tokenizer(tokenizer, config, name)
    if not parts.whole:
        _read_at_end(config, tokenizer, name)  # before the model is built, which copies the id
    refuse_wrong_end(tokenizer, config, name)
    model = _empty(config, name)
    _refuse_unfit(model, weights, name)
    preprocessing = parts.preprocessing or Preprocessing()
    refuse_other_size(preprocessing, config.vision_config.image_size, name)
    _fill(model, weights, name)
    return Clip(model.eval(), tokenizer, preprocessing.mean, preprocessing.std)


def _warn_of_code(parts: Parts, name: str) -> None:
    if parts.own_code:
        logger.warning("%s names its own code (auto_map: %s), which was not run", name, ", ".join(parts.own_code))


def _config(parts: Parts, weights: Mapping[str, Stored], name: str, activation: str | None) -> Any:
    """The CLIPConfig that the source states, completed from the weights and from `activation`."""
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    shown = {} if parts.whole else read_geometry(weights, name)
    towers = {tower: {**shown.get(tower, {}), **_known(parts.config, tower)} for tower in TOWERS}
    stated = towers["vision_config"].get("hidden_act", "quick_gelu" if parts.whole else None)
    chosen = _activation(parts, name, stated, activation)
    for tower in towers.values():
        if chosen != stated or not parts.whole:
            tower["hidden_act"] = chosen
    width = parts.config.get("projection_dim", shown.get("projection_dim", 512))
    try:
        with quiet_transformers():
            text, vision = CLIPTextConfig(**towers["text_config"]), CLIPVisionConfig(**towers["vision_config"])
            return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width)
    except Exception as error:  # a value of another type, or one that the architecture forbids
        raise RvptError(f"{name}: could not use its config ({first_line(error)})") from None


def _known(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    found = {**_record(config.get(tower)), **_record(config.get(f"{tower}_dict"))}  # the latter in old files
    return {key: value for key, value in found.items() if key in TOWERS[tower]}


def _record(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _activation(parts: Parts, name: str, stated: str | None, asked: str | None) -> str:
    if asked is not None and asked not in ACTIVATIONS:
        raise RvptError(f"activation={asked} is unknown: choose from {', '.join(ACTIVATIONS)}")
    if stated is not None:
        if asked not in (None, stated):
            logger.warning("%s: its configuration states %s; %s is used, as asked", name, stated, asked)
        return asked or stated
    if asked is None and not _is_openai(parts):
        logger.warning(
            "%s does not state its activation; quick_gelu, that of OpenAI's CLIPs, is assumed. Models of open_clip "
            "mostly have gelu: pass activation=gelu for them, or convert them with it first, by rvpt convert",
            name,
        )
    return asked or ACTIVATIONS[0]


def _is_openai(parts: Parts) -> bool:
    """Whether the weights are an archive as OpenAI published them."""
    return any(file.container == "TorchScript" for file in parts.files.values())


def _empty(config: Any, name: str) -> Any:
    """A model without values: its size costs no memory yet."""
    from transformers import CLIPModel

    try:
        with torch.device("meta"), quiet_transformers():
            return CLIPModel(config)
    except Exception as error:  # of all kinds, for sizes that make no sense
        raise RvptError(f"{name}: could not use its config ({first_line(error)})") from None


def _refuse_unfit(model: Any, weights: Mapping[str, Stored], name: str) -> None:
    """Refuse weights that are missing, misshapen, of another type, or that a CLIPModel does not have."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if (count := sum(map(math.prod, wanted.values()))) > MAX_PARAMETERS:
        raise RvptError(f"{name} has {count:,} parameters, more than any CLIP: limit {MAX_PARAMETERS:,}")
    problems = {
        "are missing": sorted(wanted.keys() - weights.keys()),
        "have another shape than the config says": [
            f"{key} {weights[key].shape}, not {shape}"
            for key, shape in wanted.items()
            if key in weights and weights[key].shape != shape
        ],
        "do not belong to a ViT CLIP": sorted(weights.keys() - wanted.keys()),
        "are not floating-point numbers of 16, 32 or 64 bits": [
            f"{key} ({weights[key].dtype})" for key in wanted if key in weights and weights[key].dtype not in FLOATING
        ],
    }
    found = [f"{len(keys)} weights {what}, such as {_some(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise RvptError(f"{name}: {'; '.join(found)}: is it a ViT CLIP? {LISTED}")


def _some(keys: Iterable[str]) -> str:
    return ", ".join(list(keys)[:3])


def _read_at_end(config: Any, tokenizer: Any, name: str) -> None:
    """Let the model read texts where OpenAI's code and open_clip do: at the highest id, the end of the text."""
    end = tokenizer.eos_token_id
    if end is None or end != len(tokenizer) - 1:
        raise RvptError(
            f"{name}: its text features are read at the highest token, and its tokenizer ends texts with {end} of "
            f"{len(tokenizer)}: give the tokenizer that it was trained with"
        )
    found = config.text_config
    found.eos_token_id, found.bos_token_id, found.pad_token_id = end, tokenizer.bos_token_id, tokenizer.pad_token_id


def _fill(model: Any, weights: Mapping[str, Stored], name: str) -> None:
    """Read the values of all weights, one after another.

    Raises:
        RvptError: a value is not finite.
    """
    filled: dict[str, Tensor] = {}
    for key in model.state_dict():
        value = weights[key].read().to(torch.float32).contiguous()
        if not torch.isfinite(value).all():
            raise RvptError(f"{name}: {key} holds values that are not finite: download the model again")
        filled[key] = value
    model.load_state_dict(filled, assign=True)
    for module in model.modules():  # the only buffers are numbers of positions
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, key, torch.arange(buffer.shape[-1]).expand(buffer.shape).clone())

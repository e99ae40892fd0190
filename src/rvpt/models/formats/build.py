"""A Clip from its parts: names, geometry, tokenizer and weights are checked against each other, then read."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rvpt.errors import RvptError, first_line
from rvpt.models.clip import Clip
from rvpt.models.formats.base import Parts
from rvpt.models.formats.checks import refuse_unfit_padding, refuse_unfit_tokenizer, refuse_wrong_end
from rvpt.models.formats.families import FAMILIES
from rvpt.models.formats.families.base import Family
from rvpt.models.formats.found import find_model
from rvpt.models.formats.geometry import refuse_absurd
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.preprocessing import refuse_other_size
from rvpt.models.formats.tokenizers import find_tokenizer
from rvpt.models.formats.weights import FLOATING, Stored
from rvpt.models.quiet import quiet_transformers

MAX_PARAMETERS = 6_000_000_000  # more than twice as many as the largest of open_clip
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")
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
    family, weights, _ = find_model(parts.weights, name)
    if parts.whole and FAMILIES[parts.whole] is not family:
        raise RvptError(f"{name}: its config.json is of a {parts.whole!r} model, its weights are of {family.summary}")
    config = _config(parts, family, weights, name, activation)
    tokenizer = find_tokenizer(parts, config.text_config.vocab_size, name)
    refuse_unfit_tokenizer(tokenizer, config, name)
    if family.end:
        if not parts.whole:
            _read_at_end(config, tokenizer, name)  # before the model is built, which copies the id
        refuse_wrong_end(tokenizer, config, name)
    else:
        refuse_unfit_padding(tokenizer, config, name)
    model = _empty(config, family, name)
    _refuse_unfit(model, family, weights, name)
    preprocessing = parts.preprocessing or family.preprocessing
    refuse_other_size(preprocessing, family.image_size(config), name)
    _fill(model, weights, name)
    return Clip(model.eval(), tokenizer, preprocessing.mean, preprocessing.std, resizing=preprocessing.resizing)


def _warn_of_code(parts: Parts, name: str) -> None:
    if parts.own_code:
        logger.warning("%s names its own code (auto_map: %s), which was not run", name, ", ".join(parts.own_code))


def _config(parts: Parts, family: Family, weights: Mapping[str, Stored], name: str, activation: str | None) -> Any:
    """The configuration that the source states, completed from the weights and from `activation`."""
    shown = {} if parts.whole else family.geometry(weights, name)
    facts = {
        tower: {**shown.get(tower, {}), **_known(parts.config, tower, keys)} for tower, keys in family.towers.items()
    }
    defaults = family.activations[0] if parts.whole else None
    stated = facts["vision_config"].get("hidden_act", facts["text_config"].get("hidden_act", defaults))
    chosen = _activation(parts, family, name, stated, activation)
    for tower, keys in family.towers.items():
        if "hidden_act" in keys and (activation or not parts.whole):
            facts[tower]["hidden_act"] = activation or facts[tower].get("hidden_act", chosen)
    refuse_absurd(facts, name)
    width = parts.config.get("projection_dim", shown.get("projection_dim", 512))
    try:
        with quiet_transformers():
            return family.config({**facts, "projection_dim": width})
    except Exception as error:  # a value of another type, or one that the architecture forbids
        raise RvptError(f"{name}: could not use its config ({first_line(error)})") from None


def _known(config: Mapping[str, Any], tower: str, keys: Sequence[str]) -> dict[str, Any]:
    found = {**_record(config.get(tower)), **_record(config.get(f"{tower}_dict"))}  # the latter in old files
    return {key: value for key, value in found.items() if key in keys}


def _record(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _activation(parts: Parts, family: Family, name: str, stated: Any, asked: str | None) -> str:
    """The activation of the model: the one that is asked for, stated, or most likely."""
    if asked is not None and asked not in ACTIVATIONS:
        raise RvptError(f"activation={asked} is unknown: choose from {', '.join(ACTIVATIONS)}")
    if stated is not None:
        if asked not in (None, stated):
            logger.warning("%s: its configuration states %s; %s is used, as asked", name, stated, asked)
        return asked or stated
    if asked is None and not _is_openai(parts):
        likely = family.activations[0]
        logger.warning(
            "%s does not state its activation; %s is assumed, that of %s. Models of open_clip mostly have gelu: load "
            "them with activation=gelu, or run rvpt convert --activation gelu first",
            name, likely, "transformers' SigLIPs" if likely == "gelu_pytorch_tanh" else "OpenAI's CLIPs",
        )  # fmt: skip
    return asked or family.activations[0]


def _is_openai(parts: Parts) -> bool:
    """Whether the weights are an archive as OpenAI published them."""
    return any(file.container == "TorchScript" for file in parts.files.values())


def _empty(config: Any, family: Family, name: str) -> Any:
    """A model without values: its size costs no memory yet."""
    try:
        with torch.device("meta"), quiet_transformers():
            return family.make(config)
    except Exception as error:  # of all kinds, for sizes that make no sense
        raise RvptError(f"{name}: could not use its config ({first_line(error)})") from None


def _refuse_unfit(model: Any, family: Family, weights: Mapping[str, Stored], name: str) -> None:
    """Refuse weights that are missing, misshapen, of another type, or that the model does not have."""
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
        f"do not belong to {family.summary}": sorted(weights.keys() - wanted.keys()),
        "are not floating-point numbers of 16, 32 or 64 bits": [
            f"{key} ({weights[key].dtype})" for key in wanted if key in weights and weights[key].dtype not in FLOATING
        ],
    }
    found = [f"{len(keys)} weights {what}, such as {_some(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise RvptError(f"{name}: {'; '.join(found)}: is it {family.summary}? {LISTED}")


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

"""Names of weights: those of OpenAI's CLIP and of open_clip become those of transformers' CLIPModel."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import partial

from torch import Tensor

from rvpt.errors import RvptError
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.weights import Stored, Weights

OPENAI, TRANSFORMERS = "visual.class_embedding", "vision_model.embeddings.class_embedding"
ANCHORS = (OPENAI, TRANSFORMERS)
"""A weight that every ViT CLIP has; what stands before it is a prefix of all names."""
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
BUFFERS = re.compile(r"(.*\.position_ids|attn_mask|input_resolution|context_length|vocab_size|.*num_batches_tracked)")
"""Numbers that are stored with weights, and that follow from the geometry."""
OTHERS = {
    "lora_": "an adapter of PEFT, not a whole model: merge it into its base model (merge_and_unload) and save that",
    "visual.trunk.": "a CLIP whose image tower is one of timm's, which is not supported: only plain ViT CLIPs are",
    "visual.attnpool.": "a ResNet CLIP, which is not supported: only ViT CLIPs are",
    "vision_model.head.": "a SigLIP, which is not supported: only ViT CLIPs (CLIPModel) are",
}
logger = logging.getLogger("rvpt")


def to_transformers(weights: Weights, name: str) -> tuple[dict[str, Stored], list[str]]:
    """Weights by the names of CLIPModel, and the names of the tensors beside the model, such as an optimizer's.

    Prefixes are removed: "module.", "_orig_mod.", "state_dict.module.".

    Raises:
        RvptError: there is no ViT CLIP in them, or there are several.
    """
    prefix, anchor = _prefix(weights, name)
    inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    beside = [key for key in weights if not key.startswith(prefix)]
    if prefix:  # expected in training checkpoints only
        logger.log(
            logging.INFO if prefix.startswith("state_dict.") else logging.WARNING,
            "%s: the prefix %s was removed from the names of its weights", name, prefix,
        )  # fmt: skip
    if anchor == OPENAI:
        inside = {key: value for old, stored in inside.items() for key, value in _renamed(old, stored)}
    return {key: value for key, value in inside.items() if not BUFFERS.fullmatch(key)}, beside


def _prefix(weights: Weights, name: str) -> tuple[str, str]:
    found = [(key.removesuffix(anchor), anchor) for key in weights for anchor in ANCHORS if _ends(key, anchor)]
    if len(found) > 1:
        places = ", ".join(prefix or "(no prefix)" for prefix, _ in found)
        raise RvptError(f"{name} holds {len(found)} CLIPs, at {places}: save the one you want alone")
    if found:
        return found[0]
    for part, what in OTHERS.items():
        if any(part in key for key in weights):
            raise RvptError(f"{name} is {what}; {LISTED}")
    some = ", ".join(sorted(weights)[:3]) or "none"
    raise RvptError(f"{name} has no weights of a ViT CLIP (it has {some}); {LISTED}")


def _ends(key: str, anchor: str) -> bool:
    return key == anchor or key.endswith(f".{anchor}")


def _renamed(old: str, stored: Stored) -> Iterator[tuple[str, Stored]]:
    """The weights of CLIPModel that come from one of OpenAI's."""
    old = old.removeprefix("text.")  # open_clip's CLIPs with a custom text tower
    if old in PARTS:
        yield PARTS[old], stored
    elif old in ("visual.proj", "text_projection"):
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

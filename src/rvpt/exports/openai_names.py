"""The weights of a CLIPModel by OpenAI's names, which open_clip uses too: the inverse of `formats.state_dict`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from rvpt.models.formats.state_dict import LAYER, PARTS

NAMES = {ours: theirs for theirs, ours in PARTS.items()}
PIECES = {ours: theirs for theirs, ours in LAYER.items()}
PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
BLOCK = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def to_openai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by OpenAI's names, values bit-identical: q, k and v of a block stacked, projections transposed.

    Raises:
        KeyError: a weight that a CLIPModel does not have.
    """
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if match := BLOCK.fullmatch(name):
            tower, number, part, kind = match.groups()
            block = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}"
            if part == "self_attn.q_proj":
                parts = [weights[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
                found[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
            elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
                found[f"{block}.{PIECES[part]}.{kind}"] = value
        elif name in PROJECTIONS:
            found[PROJECTIONS[name]] = value.T
        else:
            found[name if name == "logit_scale" else NAMES[name]] = value
    return found

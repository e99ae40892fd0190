"""Where a model looks: attention of the [CLS] token, attention rollout, and what the prompts receive."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.insight.subjects import Arrays, Subjects
from rvpt.models.blocks import block_attention, block_forward
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report

SHOWN = 2  # images


@torch.inference_mode()
def attention_weights(model: Clip | Cleaned, pixels: Tensor) -> list[Tensor]:
    """The attention weights of each block, means over heads: L tensors (B, 1 + N, b + 1 + N).

    The first b columns are the block's prompts, none in blocks without; then come [CLS] and the N patches.

    Args:
        model: a ViT CLIP, cleaned or not.
        pixels: images (B, 3, S, S) float in [0, 1].

    Raises:
        RvptError: the model has no transformer blocks.
    """
    clip, prefixes = (model.clip, model.prefixes or {}) if isinstance(model, Cleaned) else (model, {})
    tokens, found = clip.embed(pixels), []
    for index, block in enumerate(clip.blocks):
        found.append(block_attention(block, tokens, prefixes.get(index)).mean(1).float())
        tokens = block_forward(block, tokens, prefixes.get(index))
    return found


def cls_attention(weights: Tensor) -> Tensor:
    """Attention of the [CLS] token to each patch, (B, N), from one block's weights (B, 1 + N, b + 1 + N)."""
    return weights[:, 0, 1 - weights.shape[1] :]


def prompt_attention(weights: Sequence[Tensor]) -> Tensor:
    """The share of the [CLS] token's attention that each block's prompts receive: (B, L) in [0, 1]."""
    return torch.stack([each[:, 0, : each.shape[2] - each.shape[1]].sum(1) for each in weights], 1)


def rollout(weights: Sequence[Tensor]) -> Tensor:
    """Attention rollout: how much of the last [CLS] row comes from each patch, (B, N).

    R_0 = I,  R_d = (A_d + I) / 2 R_{d-1},  with A_d (1 + N, 1 + N) the attention from tokens to tokens.

    Prompts do not depend on the image, so what they receive leads to no patch: the sum over [CLS] and the patches is
    1 without prompts, and less with them.

    Source: Abnar and Zuidema (ACL 2020), with the mean over heads.
    """
    count = weights[0].shape[1]
    flow = torch.eye(count, device=weights[0].device).expand(len(weights[0]), -1, -1)
    for each in weights:
        tokens = each[:, :, each.shape[2] - count :]
        flow = (tokens + torch.eye(count, device=tokens.device)) / 2 @ flow
    return flow[:, 0, 1:]


def as_maps(patches: Tensor) -> Tensor:
    """Values of N patches, (B, N), as square maps (B, s, s), s = sqrt N, in the order of rows."""
    side = round(patches.shape[1] ** 0.5)
    return patches.view(-1, side, side)


def figure(subjects: Subjects, report: Report) -> Arrays:
    """Two images, each clean and with every trigger: I = 2 (1 + T) in all.

    `images` (I, S, S, 3) in [0, 1]; `cls`, the last block's [CLS] attention, and `rollout`, both (M, I, s, s) with
    s x s patches.
    """
    data, first = subjects.data, next(iter(subjects.models.values()))
    places = torch.arange(min(SHOWN, len(data)))
    pixels = data.pixels(places, first.image_size).to(first.device)
    shown = torch.stack(subjects.shown(pixels, places), 1).flatten(0, 1)
    maps: dict[str, list[Tensor]] = {"cls": [], "rollout": []}
    for number, model in enumerate(subjects.models.values(), 1):
        weights = attention_weights(model, shown)
        maps["cls"].append(as_maps(cls_attention(weights[-1])))
        maps["rollout"].append(as_maps(rollout(weights)))
        report(number, len(subjects.models), {})
    arrays = {name: torch.stack(each).cpu() for name, each in maps.items()}
    return Arrays({"images": shown.permute(0, 2, 3, 1).cpu(), **arrays}, subjects.facts(n=len(places)))

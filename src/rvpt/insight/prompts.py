"""Where the prompts' attention goes: how much of the [CLS] token's attention prompts receive, per block."""

from __future__ import annotations

import torch

from rvpt.errors import RvptError
from rvpt.insight.attention import attention_weights, prompt_attention
from rvpt.insight.subjects import BATCH, Arrays, Subjects, mean_and_std
from rvpt.models.cleaned import Cleaned
from rvpt.progress import Report


def figure(subjects: Subjects, report: Report) -> Arrays:
    """`mean`, `std` (M, 1 + T, L): the share of the [CLS] token's attention that prompts receive, over images.

    Raises:
        RvptError: no model has prompts.
    """
    if not any(isinstance(model, Cleaned) and model.prefixes for model in subjects.models.values()):
        raise RvptError("no model has prompts, whose attention this figure shows")
    data, shares = subjects.data, []
    for model in subjects.models.values():
        parts = []
        for indices, pixels in data.batches(BATCH, model.image_size, model.device, report):
            shown = subjects.shown(pixels, indices)
            parts.append(torch.stack([prompt_attention(attention_weights(model, each)).cpu() for each in shown]))
        shares.append(torch.cat(parts, 1))
    return Arrays(mean_and_std(shares), subjects.facts())

"""Quantization: weights, and the keys and values of prompts, rounded to int8 or fp16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rvpt.models.cleaned import Cleaned
from rvpt.modifications.base import Material, Modification
from rvpt.spec import Spec

LEVELS = 127


def round_int8(weight: Tensor) -> Tensor:
    """Weights (..., n) rounded to int8, symmetric per row: s round(w / s) with s = max |w| / 127 of the row.

    A row is along the last dimension: all inputs of one output of a linear layer, but of the patch convolution
    (W, 3, P, P) only the P weights in one row of a kernel, of one channel.
    """
    scale = weight.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / LEVELS
    return scale * (weight / scale).round()


def round_fp16(weight: Tensor) -> Tensor:
    """Weights rounded to 16-bit floating point."""
    return weight.half().to(weight.dtype)


def _rounded(change: Callable[[Tensor], Tensor]) -> Callable[[Cleaned, Any, Material], Cleaned]:
    @torch.no_grad()
    def apply(model: Cleaned, settings: Any, material: Material) -> Cleaned:
        for weight in model.clip.parameters():
            if weight.ndim > 1:  # biases and norms stay as they are, as is usual
                weight.copy_(change(weight))
        model.prefixes = {b: (change(k), change(v)) for b, (k, v) in model.prefixes.items()} if model.prefixes else None
        return model

    return apply


INT8 = Modification("weights rounded to int8, symmetric, per row", Spec, _rounded(round_int8))
FP16 = Modification("weights rounded to fp16", Spec, _rounded(round_fp16))

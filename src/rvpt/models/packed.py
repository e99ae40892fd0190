"""A copy of a model for many passes with frozen weights: fewer operations, and nothing is converted twice."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.models.clip import Clip

QUICK = 1.702
"""Of quick GELU, x sigmoid(1.702 x)."""


def packed(clip: Clip, dtype: torch.dtype) -> Clip:
    """A copy of a model that gives the same features, to train something else than its weights.

    The linear layers of its blocks are in `dtype`: mixed precision would convert frozen weights again in every pass.
    The weights of a block's queries, keys and values lie in one matrix, so that one product gives all three. Quick GELU
    is SiLU, a single operation, between weights that hold its factor: x sigmoid(c x) = silu(c x) / c. Everything else
    is shared with `clip`.
    """
    shared = [*clip.parameters(), *clip.buffers(), clip.tokenizer]
    other = copy.deepcopy(clip, {id(part): part for part in shared})
    for layer in other.blocks:
        if clip.activation == "quick_gelu":
            _fold(layer.mlp)
        for linear in layer.modules():
            if isinstance(linear, nn.Linear):
                _set(linear, linear.weight.to(dtype), linear.bias.to(dtype))
        _join(layer.self_attn)
    return other


def _fold(mlp: Any) -> None:
    """Put the factor of quick GELU into the weights before and after it."""
    mlp.activation_fn = nn.SiLU()
    _set(mlp.fc1, QUICK * mlp.fc1.weight, QUICK * mlp.fc1.bias)
    _set(mlp.fc2, mlp.fc2.weight / QUICK, mlp.fc2.bias)


def _join(attention: Any) -> None:
    """Add `qkv_proj`; the three separate layers become parts of it."""
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    attention.qkv_proj = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    _set(attention.qkv_proj, weight, bias)
    for part, w, b in zip(parts, weight.chunk(3), bias.chunk(3), strict=True):
        _set(part, w, b)


def _set(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight, linear.bias = (nn.Parameter(value.detach(), requires_grad=False) for value in (weight, bias))

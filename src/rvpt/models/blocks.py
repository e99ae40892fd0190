"""The forward pass of a transformer block; no other code runs a block.

It uses the weights of the Hugging Face modules and prepends the keys and values of prompts. Nothing else of a prompt is
needed: its output is dropped, so its query is not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

KV = tuple[Tensor, Tensor]
"""Keys and values of one block's prompts, each (b, W)."""
Prefixes = Mapping[int, KV]
"""Block index -> keys and values; other blocks have no prompts."""


def block_forward(layer: Any, tokens: Tensor, prefix: KV | None = None, *, cls_only: bool = False) -> Tensor:
    """One pre-norm transformer block whose attention also sees a prefix of prompt keys and values.

    h = LN1(x);  y = x + softmax(q(h) [K_p, k(h)]^t / sqrt(d)) [V_p, v(h)] W_o;  y + MLP(LN2(y))

    Args:
        layer: a CLIPEncoderLayer.
        tokens: (B, T, W).
        prefix: keys and values of the prompts, the same for every image.
        cls_only: compute only the first token's output.

    Returns:
        (B, T, W), or (B, 1, W) with `cls_only`.
    """
    attention = layer.self_attn
    asked = slice(0, 1) if cls_only else slice(None)
    query, key, value = _projected(layer, tokens, asked)
    mixed = attend(query, key, value, prefix, attention.num_heads, attention.scale)
    tokens = tokens[:, asked] + attention.out_proj(mixed)
    result: Tensor = tokens + layer.mlp(layer.layer_norm2(tokens))
    return result


def block_attention(layer: Any, tokens: Tensor, prefix: KV | None = None) -> Tensor:
    """The attention weights of a block, softmax(q(h) [K_p, k(h)]^t / sqrt(d)).

    Args:
        layer: a CLIPEncoderLayer.
        tokens: (B, T, W).
        prefix: keys and values of b prompts.

    Returns:
        (B, heads, T, b + T): from each token to the prompts, then to the tokens; the sum over the last axis is 1.
    """
    attention = layer.self_attn
    query, key, _ = _projected(layer, tokens, slice(None))
    key = key if prefix is None else join(prefix[0], key)
    query, key = (split_heads(x, attention.num_heads) for x in (query, key))
    return (attention.scale * query @ key.mT).softmax(-1)


def _projected(layer: Any, tokens: Tensor, asked: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the tokens `asked`, and keys and values of all tokens, each (B, ..., W)."""
    attention, hidden = layer.self_attn, layer.layer_norm1(tokens)
    if hasattr(attention, "qkv_proj") and asked == slice(None):  # a packed model
        query, key, value = attention.qkv_proj(hidden).chunk(3, dim=-1)
        return query, key, value
    return attention.q_proj(hidden[:, asked]), attention.k_proj(hidden), attention.v_proj(hidden)


def attend(query: Tensor, key: Tensor, value: Tensor, prefix: KV | None, heads: int, scale: float) -> Tensor:
    """softmax(scale q [K_p, k]^t) [V_p, v] for each head: (B, Q, W) of queries (B, Q, W), keys and values (B, T, W)."""
    if prefix is not None and torch.onnx.is_in_onnx_export():
        return attend_apart(query, key, value, prefix, heads, scale)
    if prefix is not None:
        key, value = join(prefix[0], key), join(prefix[1], value)
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2).flatten(2)


def attend_apart(query: Tensor, key: Tensor, value: Tensor, prefix: KV, heads: int, scale: float) -> Tensor:
    """The same, with matrix products of their own for prompts and images: only scores are joined.

    For runtimes that have no fused attention, where to copy the prompts' keys and values for every image costs more
    than a second product.
    """
    parts = (scale * query, key, value, *(part[None].to(key.dtype) for part in prefix))
    query, key, value, prompt_key, prompt_value = (split_heads(part, heads) for part in parts)
    weights = torch.cat([query @ prompt_key.mT, query @ key.mT], dim=-1).softmax(-1)
    of_prompts, of_tokens = weights.tensor_split([prompt_key.shape[2]], dim=-1)
    return (of_prompts @ prompt_value + of_tokens @ value).transpose(1, 2).flatten(2)


def prompt_kv(layer: Any, prompts: Tensor) -> KV:
    """Keys and values that prompts (b, W) have in a block: W_k LN1(p), W_v LN1(p)."""
    hidden = layer.layer_norm1(prompts)
    return layer.self_attn.k_proj(hidden), layer.self_attn.v_proj(hidden)


def join(prefix: Tensor, tokens: Tensor) -> Tensor:
    """A prefix (b, W), the same for every image, before tokens (B, T, W): (B, b + T, W)."""
    return torch.cat([prefix.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, T, W) -> (B, heads, T, W / heads)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)

"""A transformers CLIPModel whose attention also sees the keys and values of prompts."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.models.blocks import KV, Prefixes, attend
from rvpt.models.clip import Clip


class PromptedAttention(nn.Module):
    """A block's self-attention with a prefix of keys and values (b, W), which replaces transformers' module.

    softmax(q(h) [K_p, k(h)]^t / sqrt(d)) [V_p, v(h)] W_o, with tokens h (B, T, W); no weights are returned.
    """

    prompt_key: Tensor
    prompt_value: Tensor

    def __init__(self, attention: Any, prefix: KV) -> None:
        super().__init__()
        self.attention = attention
        for name, value in zip(("prompt_key", "prompt_value"), prefix, strict=True):
            self.register_buffer(name, value.detach().clone())

    def forward(self, hidden_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, None]:
        attention = self.attention
        query, key, value = (part(hidden_states) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        prefix = (self.prompt_key, self.prompt_value)
        return attention.out_proj(attend(query, key, value, prefix, attention.num_heads, attention.scale)), None


def prompted_transformers(clip: Clip, prefixes: Prefixes) -> Any:
    """A copy of a CLIP's CLIPModel with prompts in the blocks of `prefixes`."""
    model = copy.deepcopy(clip.model)
    for block, prefix in prefixes.items():
        layer = model.vision_model.encoder.layers[block]
        layer.self_attn = PromptedAttention(layer.self_attn, prefix)
    if prefixes:
        model.save_pretrained = _refuse_saving
    return model


def _refuse_saving(*args: Any, **options: Any) -> None:
    """In the place of `save_pretrained`: CLIPModel would load the file without the prompts and with random weights."""
    raise RvptError("a CLIPModel with prompts cannot be loaded by transformers again: save the cleaned model instead")

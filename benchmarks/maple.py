"""Token prompts in both towers, in the style of MaPLe, to compare times with; nothing is computed once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.models.clip import Clip
from rvpt.training.losses import zero_shot_logits


class TokenPrompts(nn.Module):
    """Deep prompts of both towers: n tokens in each of the first J blocks, those of images made from those of texts.

    Block j < J of the text tower gets the tokens t_j after <start>, block j of the visual tower W_j t_j after the
    patches; in later blocks they stay what they became. A step encodes the captions of all classes, with gradients.

    Source: Khattak et al. (CVPR 2023, MaPLe); n = 2, J = 9.
    """

    def __init__(self, clip: Clip, classes: list[str], length: int = 2, depth: int = 9) -> None:
        super().__init__()
        text, width = clip.model.config.text_config, clip.width
        depth = min(depth, len(clip.blocks), text.num_hidden_layers)
        self.text = nn.Parameter(0.02 * torch.randn(depth, length, text.hidden_size, device=clip.device))
        self.weight = nn.Parameter(0.02 * torch.randn(depth, width, text.hidden_size, device=clip.device))
        filler = " ".join("x" * length)  # its tokens are replaced
        self.ids = clip.tokenize([f"{filler} {name}." for name in classes])

    def features(self, clip: Clip, pixels: Tensor) -> Tensor:
        """Unit image features (B, P)."""
        tokens, visual = clip.embed(pixels), torch.einsum("jvt,jnt->jnv", self.weight, self.text)
        count = tokens.shape[1]
        tokens = torch.cat([tokens, visual[0].expand(len(tokens), -1, -1)], dim=1)
        for index, layer in enumerate(clip.blocks):
            if 0 < index < len(visual):
                tokens = torch.cat([tokens[:, :count], visual[index].expand(len(tokens), -1, -1)], dim=1)
            tokens = layer(tokens, None)
        return clip.project(tokens[:, 0])

    def text_features(self, clip: Clip) -> Tensor:
        """Unit text features (K, P) of all classes."""
        model, ids, length = clip.model.text_model, self.ids, self.text.shape[1]
        hidden = model.embeddings(input_ids=ids)
        size = hidden.shape[1]
        mask = torch.full((size, size), float("-inf"), device=hidden.device).triu(1)
        for index, layer in enumerate(model.encoder.layers):
            if index < len(self.text):
                own = self.text[index].expand(len(ids), -1, -1)
                hidden = torch.cat([hidden[:, :1], own.to(hidden.dtype), hidden[:, 1 + length :]], dim=1)
            hidden = layer(hidden, mask[None, None].to(hidden.dtype))
        ends = (ids == model.eos_token_id).int().argmax(dim=1)
        pooled = model.final_layer_norm(hidden)[torch.arange(len(ids), device=ids.device), ends]
        return F.normalize(clip.model.text_projection(pooled), dim=-1)

    def loss(self, clip: Clip, pixels: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of a batch."""
        logits = zero_shot_logits(self.features(clip, pixels), self.text_features(clip), clip.logit_scale)
        return F.cross_entropy(logits, labels)

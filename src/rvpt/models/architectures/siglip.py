"""SigLIPs (Zhai et al., ICCV 2023): transformers' SiglipModel, and those of open_clip, which are converted to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rvpt.models.architectures.base import Transformer


class SiglipClip(Transformer):
    """A SiglipModel. It has no [CLS] token: rows are means over the patches after each block.

    It is trained with a sigmoid for each pair, sigma(tau cos + b). The bias b is the same for all classes, so it
    changes no prediction; only `Clip.forward` adds it to logits.
    """

    summary = "a SigLIP"
    kind = "SigLIP"
    processor = "SiglipImageProcessor"

    @property
    def image_modules(self) -> list[nn.Module]:
        return [self.model.vision_model]

    @property
    def projection_dim(self) -> int:
        return self.width

    @property
    def logit_bias(self) -> Tensor:
        bias: Tensor = self.model.logit_bias
        return bias

    def features_and_rows(self, pixel_values: Tensor, prefixes: Any = None) -> tuple[Tensor, Tensor]:
        vision, rows = self.model.vision_model, []
        if not len(pixel_values):  # which transformers' attention cannot reshape
            return pixel_values.new_zeros(0, self.width), pixel_values.new_zeros(0, self.depth, self.width)
        tokens = vision.embeddings(pixel_values)
        for block in vision.encoder.layers:
            tokens = block(tokens, attention_mask=None)
            rows.append(tokens.mean(1))
        return vision.head(vision.post_layernorm(tokens)), torch.stack(rows, 1)

    def text_features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        features: Tensor = self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return features

    def padding(self) -> str | bool:
        return "max_length"  # a text's feature is read at the last place, after the padding, which it was trained with

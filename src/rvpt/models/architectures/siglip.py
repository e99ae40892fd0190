"""SigLIPs (Zhai et al., ICCV 2023): transformers' SiglipModel, and those of open_clip, which are converted to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.models.architectures.base import Architecture, save_transformers, tower_facts
from rvpt.models.formats.preprocessing import Preprocessing


class SiglipClip(Architecture):
    """A SiglipModel. It has no [CLS] token: rows are means over the patches after each block.

    It is trained with a sigmoid for each pair, sigma(tau cos + b). The bias b is the same for all classes, so it
    changes no prediction; only `Clip.forward` adds it to logits.
    """

    summary = "a SigLIP"

    @property
    def image_modules(self) -> list[nn.Module]:
        return [self.model.vision_model]

    @property
    def image_size(self) -> int:
        return int(self.model.config.vision_config.image_size)

    @property
    def width(self) -> int:
        return int(self.model.config.vision_config.hidden_size)

    @property
    def depth(self) -> int:
        return len(self.model.vision_model.encoder.layers)

    @property
    def projection_dim(self) -> int:
        return self.width

    @property
    def activation(self) -> str:
        return str(self.model.config.vision_config.hidden_act)

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

    def save(self, folder: Path, preprocessing: Preprocessing) -> None:
        save_transformers(self.model, folder, preprocessing, "SiglipImageProcessor")

    def facts(self) -> dict[str, Any]:
        vision = self.model.config.vision_config
        return {
            "name": f"SigLIP, patch {vision.patch_size}, image {vision.image_size}",
            "image tower": tower_facts(vision),
        }

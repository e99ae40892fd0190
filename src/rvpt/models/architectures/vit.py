"""ViT CLIPs, as OpenAI's ViT-B/32: transformers' CLIPModel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rvpt.models.architectures.base import Transformer
from rvpt.models.blocks import Prefixes, block_forward


class VitClip(Transformer):
    """A CLIPModel. Its blocks are run by `block_forward`, with prompts as keys and values."""

    summary = "a ViT CLIP"
    kind = "ViT"
    processor = "CLIPImageProcessor"

    @property
    def image_modules(self) -> list[nn.Module]:
        return [self.model.vision_model, self.model.visual_projection]

    @property
    def projection_dim(self) -> int:
        return int(self.model.config.projection_dim)

    @property
    def blocks(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.model.vision_model.encoder.layers
        return layers

    def embed(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.vision_model
        tokens: Tensor = vision.pre_layrnorm(vision.embeddings(pixel_values))
        return tokens

    def run_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, prefixes: Prefixes | None = None
    ) -> tuple[Tensor, Tensor]:
        blocks, rows = self.blocks, []
        for index in range(start, len(blocks) if stop is None else stop):
            prefix = prefixes.get(index) if prefixes else None
            tokens = block_forward(blocks[index], tokens, prefix, cls_only=index == len(blocks) - 1)
            rows.append(tokens[:, 0])
        return tokens, torch.stack(rows, 1) if rows else tokens.new_zeros(len(tokens), 0, tokens.shape[-1])

    def project(self, cls: Tensor) -> Tensor:
        features: Tensor = self.model.visual_projection(self.model.vision_model.post_layernorm(cls))
        return features

    def features_and_rows(self, pixel_values: Tensor, prefixes: Prefixes | None = None) -> tuple[Tensor, Tensor]:
        tokens, rows = self.run_blocks(self.embed(pixel_values), prefixes=prefixes)
        return self.project(tokens[:, 0]), rows

    def hidden_states(self, pixel_values: Tensor, layers: Sequence[int], prefixes: Prefixes | None) -> list[Tensor]:
        places = [range(self.depth + 1)[layer] for layer in layers]
        states = [self.embed(pixel_values)]
        for index, block in enumerate(self.blocks[: max(places)]):
            states.append(block_forward(block, states[-1], (prefixes or {}).get(index)))
        return [states[place] for place in places]

    def text_features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        features: Tensor = self.model.text_projection(
            self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        )
        return features

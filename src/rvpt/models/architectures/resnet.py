"""ResNet CLIPs as an architecture; they are saved in open_clip's layout, because transformers has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.errors import RvptError
from rvpt.models.architectures.base import Architecture
from rvpt.models.card import open_clip_card
from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.formats.write_open_clip import write_open_clip


class ResNetClip(Architecture):
    """A `ResNetModel`. Rows are means over the map after each stage, with zeros after the channels that it lacks."""

    summary = "a ResNet CLIP"

    @property
    def image_modules(self) -> list[nn.Module]:
        return [self.model.visual]

    @property
    def image_size(self) -> int:
        return int(self.model.config.image_size)

    @property
    def width(self) -> int:
        return int(self.model.config.embedding)

    @property
    def depth(self) -> int:
        return len(self.model.config.layers)

    @property
    def projection_dim(self) -> int:
        return int(self.model.config.projection_dim)

    @property
    def activation(self) -> str:
        return str(self.model.config.text_config.hidden_act)

    def features_and_rows(self, pixel_values: Tensor, prefixes: Any = None) -> tuple[Tensor, Tensor]:
        features, maps = self.model.visual(pixel_values)
        means = [each.mean((2, 3)) for each in maps]
        return features, torch.stack([F.pad(mean, (0, self.width - mean.shape[1])) for mean in means], 1)

    def text_features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        pooled = self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        features: Tensor = self.model.text_projection(pooled)
        return features

    def save(self, folder: Path, preprocessing: Preprocessing) -> None:
        write_open_clip(self.model, folder, preprocessing)

    def card(self, name: str) -> str:
        return open_clip_card(name)

    def exported(self) -> Any:
        raise RvptError("transformers has no ResNet CLIP: save_pretrained writes it in the layout of open_clip")

    def facts(self) -> dict[str, Any]:
        config = self.model.config
        blocks = ", ".join(map(str, config.layers))
        return {
            "name": f"ResNet, blocks {blocks}, width {config.width}, image {config.image_size}",
            "image tower": f"{self.depth} stages, {self.width} channels, pooled by {config.heads} heads",
        }

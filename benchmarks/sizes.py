"""CLIPs of published sizes with random weights: time and memory do not depend on the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from rvpt.models.clip import Clip
from rvpt.training.pretrain import train_tokenizer


@dataclass(frozen=True)
class Geometry:
    """Settings of a CLIPVisionConfig, and where its prompts go."""

    vision: dict[str, Any]
    projection: int
    first_block: int = 3
    length: int = 50

    @property
    def patches(self) -> int:
        return (self.vision["image_size"] // self.vision["patch_size"]) ** 2

    @property
    def text(self) -> dict[str, Any]:
        """The text tower of OpenAI's models: as wide as the projection, at most 12 blocks."""
        return {
            "hidden_size": self.projection, "intermediate_size": 4 * self.projection,
            "num_hidden_layers": min(12, self.vision["num_hidden_layers"]),
            "num_attention_heads": max(1, self.projection // 64), "hidden_act": "quick_gelu",
        }  # fmt: skip


def tower(width: int, blocks: int, image: int, patch: int, **others: Any) -> dict[str, Any]:
    openai = {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": blocks,
        "num_attention_heads": width // 64, "image_size": image, "patch_size": patch, "hidden_act": "quick_gelu",
    }  # fmt: skip
    return openai | others


MODELS = {
    "tiny": Geometry(tower(64, 4, 64, 16), 64),
    "scenes": Geometry(tower(128, 8, 48, 8, num_attention_heads=8, hidden_act="gelu"), 128, first_block=2, length=100),
    "b32": Geometry(tower(768, 12, 224, 32), 512),
    "b16": Geometry(tower(768, 12, 224, 16), 512),
    "l14": Geometry(tower(1024, 24, 224, 14), 768),
}


def random_clip(model: str, device: str, classes: Sequence[str]) -> Clip:
    """A CLIP with random weights, and a tokenizer trained on the class names."""
    geometry, tokenizer = MODELS[model], train_tokenizer(classes, 512)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(
        text_config=geometry.text | ends, vision_config=geometry.vision, projection_dim=geometry.projection
    )
    torch.manual_seed(0)
    with torch.device(device):
        return Clip(CLIPModel(config), tokenizer).eval()

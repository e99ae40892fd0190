"""ViT CLIPs: transformers' CLIPModel, and the same by OpenAI's names, as open_clip and training code have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpt.models.formats.families.base import Family
from rvpt.models.formats.geometry import text_geometry, vision_geometry
from rvpt.models.formats.state_dict import from_openai
from rvpt.models.formats.weights import Stored, Weights

OPENAI, TRANSFORMERS = "visual.class_embedding", "vision_model.embeddings.class_embedding"


class Vit(Family):
    """CLIPModel."""

    summary = "a ViT CLIP"
    anchors = (OPENAI, TRANSFORMERS)

    def renamed(self, weights: Weights, anchor: str) -> dict[str, Stored]:
        return from_openai(weights) if anchor == OPENAI else dict(weights)

    def geometry(self, weights: Weights, name: str) -> dict[str, Any]:
        vision = vision_geometry(weights, name, extra=1)
        return {"vision_config": vision, **text_geometry(weights, name, "visual_projection.weight")}

    def config(self, facts: Mapping[str, Any]) -> Any:
        from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

        text, vision = CLIPTextConfig(**facts["text_config"]), CLIPVisionConfig(**facts["vision_config"])
        width = facts.get("projection_dim", 512)
        return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width)

    def make(self, config: Any) -> Any:
        from transformers import CLIPModel

        return CLIPModel(config)

    def image_size(self, config: Any) -> int:
        return int(config.vision_config.image_size)


VIT = Vit()

"""ResNet CLIPs, by OpenAI's names: RN50, RN101, RN50x4, RN50x16, RN50x64, and those of open_clip."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from rvpt.errors import RvptError
from rvpt.models.formats.families.base import TEXT, Family
from rvpt.models.formats.geometry import shape_of, text_geometry
from rvpt.models.formats.state_dict import from_openai
from rvpt.models.formats.weights import Stored, Weights

BLOCK = re.compile(r"visual\.layer([1-4])\.(\d+)\.conv1\.weight")
POSITIONS = "visual.attnpool.positional_embedding"
SIDE, HEAD = 32, 64  # pixels of an image per position, and channels of an attention head


class ResNet(Family):
    """`ResNetModel`, whose image tower keeps OpenAI's names."""

    summary = "a ResNet CLIP"
    anchors = (POSITIONS,)
    towers = {"vision_config": ("layers", "width", "image_size", "num_attention_heads"), "text_config": TEXT}

    def renamed(self, weights: Weights, anchor: str) -> dict[str, Stored]:
        tower = {key: value for key, value in weights.items() if key.startswith("visual.")}
        rest = {key: value for key, value in weights.items() if key not in tower}
        return {**tower, **from_openai(rest)}

    def geometry(self, weights: Weights, name: str) -> dict[str, Any]:
        positions, channels = shape_of(weights, POSITIONS, 2, name)
        side = math.isqrt(max(positions - 1, 0))
        stages = [match[1] for key in weights if (match := BLOCK.fullmatch(key))]
        layers = [stages.count(number) for number in "1234"]
        if side * side != positions - 1 or not side or not all(layers):
            raise RvptError(f"{name}: {positions} positions and {layers} blocks are not those of a ResNet CLIP")
        vision = {
            "layers": layers,
            "width": shape_of(weights, "visual.conv3.weight", 4, name)[0],
            "image_size": SIDE * side,
            "num_attention_heads": max(channels // HEAD, 1),
        }
        return {"vision_config": vision, **text_geometry(weights, name, "visual.attnpool.c_proj.weight")}

    def config(self, facts: Mapping[str, Any]) -> Any:
        from transformers import CLIPTextConfig

        from rvpt.models.architectures.resnet_model import ResNetConfig

        vision, text = facts["vision_config"], CLIPTextConfig(**facts["text_config"])
        return ResNetConfig(
            tuple(vision["layers"]), vision["width"], vision["num_attention_heads"], vision["image_size"],
            facts["projection_dim"], text,
        )  # fmt: skip

    def make(self, config: Any) -> Any:
        from rvpt.models.architectures.resnet_model import ResNetModel

        return ResNetModel(config)

    def image_size(self, config: Any) -> int:
        return int(config.image_size)


RESNET = ResNet()

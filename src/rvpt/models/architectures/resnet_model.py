"""ResNet CLIPs (Radford et al., ICML 2021): OpenAI's RN50 and others. transformers has no such model.

Weights of the image tower have OpenAI's names, those of the text tower the names of transformers' CLIPModel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.models.blocks import split_heads

EXPANSION = 4  # channels that leave a block, per channel inside
REDUCTION = 32  # side of the image per side of the last stage's map
EPS = 1e-5


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes: blocks of each of the four stages, channels of the stem, heads of the attention that pools, and sides."""

    layers: tuple[int, ...]
    width: int
    heads: int
    image_size: int
    projection_dim: int
    text_config: Any

    @property
    def embedding(self) -> int:
        """Channels of the last stage."""
        return self.width * 2 ** (len(self.layers) - 1) * EXPANSION


class FixedNorm(nn.Module):
    """Batch normalization with the statistics of pretraining; fine-tuning changes only weight and bias.

    y = weight (x - running_mean) / sqrt(running_var + eps) + bias, for each channel
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, maps: Tensor) -> Tensor:
        return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=EPS)


def convolution(inner: int, outer: int, side: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, side, stride, padding=side // 2, bias=False)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; a block that halves the map averages 2 x 2 pixels before the third."""

    def __init__(self, inner: int, channels: int, stride: int) -> None:
        super().__init__()
        outer = channels * EXPANSION
        self.stride = stride
        self.conv1, self.bn1 = convolution(inner, channels), FixedNorm(channels)
        self.conv2, self.bn2 = convolution(channels, channels, 3), FixedNorm(channels)
        self.conv3, self.bn3 = convolution(channels, outer), FixedNorm(outer)
        changes = stride > 1 or inner != outer
        self.downsample = nn.ModuleDict({"0": convolution(inner, outer), "1": FixedNorm(outer)}) if changes else None

    def forward(self, maps: Tensor) -> Tensor:
        inside = F.relu(self.bn1(self.conv1(maps)))
        inside = F.relu(self.bn2(self.conv2(inside)))
        inside = self.bn3(self.conv3(self._smaller(inside)))
        if self.downsample is not None:
            maps = self.downsample["1"](self.downsample["0"](self._smaller(maps)))
        return F.relu(inside + maps)

    def _smaller(self, maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, self.stride) if self.stride > 1 else maps


class AttentionPool(nn.Module):
    """Multi-head attention whose only query is the mean of the map: (B, C, H, W) -> (B, P)."""

    def __init__(self, side: int, channels: int, heads: int, features: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(side * side + 1, channels))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, features)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positional_embedding
        parts = (self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens))
        query, key, value = (split_heads(part, self.heads) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value)
        features: Tensor = self.c_proj(mixed.transpose(1, 2).flatten(1))
        return features


class ResNetTower(nn.Module):
    """A stem of three convolutions, four stages of blocks, and attention instead of average pooling at the end."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width, half = config.width, config.width // 2
        self.conv1, self.bn1 = convolution(3, half, 3, stride=2), FixedNorm(half)
        self.conv2, self.bn2 = convolution(half, half, 3), FixedNorm(half)
        self.conv3, self.bn3 = convolution(half, width, 3), FixedNorm(width)
        inner = width
        for stage, count in enumerate(config.layers):
            blocks, channels = [], width * 2**stage
            for number in range(count):
                blocks.append(Bottleneck(inner, channels, 2 if stage and not number else 1))
                inner = channels * EXPANSION
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(config.layers)
        self.attnpool = AttentionPool(config.image_size // REDUCTION, inner, config.heads, config.projection_dim)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features (B, P), and the map after each stage."""
        maps = pixel_values
        for number in (1, 2, 3):
            maps = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(maps)))
        maps, found = F.avg_pool2d(maps, 2), []
        for stage in range(self.stages):
            maps = getattr(self, f"layer{stage + 1}")(maps)
            found.append(maps)
        return self.attnpool(maps), found


class ResNetModel(nn.Module):
    """Both towers; the text tower is that of a CLIPModel."""

    def __init__(self, config: ResNetConfig) -> None:
        from transformers import CLIPTextModel

        super().__init__()
        self.config = config
        self.visual = ResNetTower(config)
        self.text_model = CLIPTextModel(config.text_config)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(0.0))

    @property
    def dtype(self) -> torch.dtype:
        return self.logit_scale.dtype

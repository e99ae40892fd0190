"""Random ResNet CLIPs in OpenAI's layout, and a slow twin of their image tower: what OpenAI's code computes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from openai_layout import Geometry, open_clip_config, random_weights


@dataclass(frozen=True)
class Resnet:
    """Sizes of a small ResNet CLIP; its text tower is that of `Geometry`."""

    layers: tuple[int, ...] = (1, 2, 1, 1)
    width: int = 8
    side: int = 64
    features: int = 16

    @property
    def heads(self) -> int:
        return self.width // 2  # 64 channels each


def resnet_weights(sizes: Resnet = Resnet(), seed: int = 0, vocabulary: int | None = None) -> dict[str, Tensor]:
    """Weights of a whole ResNet CLIP by OpenAI's names."""
    generator = torch.Generator().manual_seed(seed)
    found = {key: value for key, value in random_weights(vocabulary=vocabulary).items() if "visual" not in key}

    def draw(*shape: int, spread: float = 0.1, mean: float = 0.0) -> Tensor:
        return mean + spread * torch.randn(*shape, generator=generator)

    def layer(name: str, norm: str, outer: int, inner: int, side: int) -> None:
        found[f"{name}.weight"] = draw(outer, inner, side, side, spread=1 / math.sqrt(inner * side * side))
        found[f"{norm}.weight"], found[f"{norm}.bias"] = draw(outer, mean=1.0), draw(outer)
        found[f"{norm}.running_mean"] = draw(outer)
        found[f"{norm}.running_var"] = draw(outer, mean=1.0).abs()
        found[f"{norm}.num_batches_tracked"] = torch.tensor(3)

    half = sizes.width // 2
    for number, (outer, inner) in enumerate([(half, 3), (half, half), (sizes.width, half)], 1):
        layer(f"visual.conv{number}", f"visual.bn{number}", outer, inner, 3)
    inner = sizes.width
    for stage, count in enumerate(sizes.layers):
        channels = sizes.width * 2**stage
        for block in range(count):
            place = f"visual.layer{stage + 1}.{block}"
            for number, (outer, into, side) in enumerate(
                [(channels, inner, 1), (channels, channels, 3), (4 * channels, channels, 1)], 1
            ):
                layer(f"{place}.conv{number}", f"{place}.bn{number}", outer, into, side)
            if not block:
                layer(f"{place}.downsample.0", f"{place}.downsample.1", 4 * channels, inner, 1)
            inner = 4 * channels
    found["visual.attnpool.positional_embedding"] = draw((sizes.side // 32) ** 2 + 1, inner)
    for letter, outer in zip("qkvc", (inner, inner, inner, sizes.features), strict=True):
        found[f"visual.attnpool.{letter}_proj.weight"] = draw(outer, inner, spread=1 / math.sqrt(inner))
        found[f"visual.attnpool.{letter}_proj.bias"] = draw(outer)
    return found


def resnet_config(sizes: Resnet = Resnet(), *, quick: bool = True, **preprocess: Any) -> dict[str, Any]:
    """The contents of open_clip_config.json."""
    config = open_clip_config(Geometry(features=sizes.features), quick=quick, **preprocess)
    vision = {"image_size": sizes.side, "layers": list(sizes.layers), "width": sizes.width, "patch_size": None}
    return {**config, "model_cfg": {**config["model_cfg"], "vision_cfg": vision}}


class NaiveResnet:
    """OpenAI's ModifiedResNet, one formula after another."""

    def __init__(self, weights: dict[str, Tensor], sizes: Resnet = Resnet()) -> None:
        self.weights, self.sizes = weights, sizes

    def convolve(self, x: Tensor, name: str, norm: str, stride: int = 1) -> Tensor:
        weight = self.weights[f"visual.{name}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, shift = (
            self.weights[f"visual.{norm}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return scale * (x - mean) / torch.sqrt(var + 1e-5) + shift

    def stages(self, pixel_values: Tensor) -> list[Tensor]:
        """The map after each stage."""
        x = pixel_values
        for number in (1, 2, 3):
            x = self.convolve(x, f"conv{number}", f"bn{number}", 2 if number == 1 else 1).clamp(min=0)
        x, found = F.avg_pool2d(x, 2), []
        for stage, count in enumerate(self.sizes.layers):
            for block in range(count):
                x = self.block(x, f"layer{stage + 1}.{block}", halves=bool(stage) and not block, shortcut=bool(block))
            found.append(x)
        return found

    def block(self, x: Tensor, name: str, *, halves: bool, shortcut: bool) -> Tensor:
        y = self.convolve(x, f"{name}.conv1", f"{name}.bn1").clamp(min=0)
        y = self.convolve(y, f"{name}.conv2", f"{name}.bn2").clamp(min=0)
        if halves:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        y = self.convolve(y, f"{name}.conv3", f"{name}.bn3")
        if not shortcut:
            x = self.convolve(x, f"{name}.downsample.0", f"{name}.downsample.1")
        return (x + y).clamp(min=0)

    def image(self, pixel_values: Tensor) -> Tensor:
        x = self.stages(pixel_values)[-1].flatten(2).permute(0, 2, 1)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.weights["visual.attnpool.positional_embedding"]
        query, key, value = (self.linear(x, letter) for letter in "qkv")
        size, parts = x.shape[-1] // self.sizes.heads, []
        for head in range(self.sizes.heads):
            own = slice(head * size, (head + 1) * size)
            scores = query[:, :1, own] @ key[..., own].transpose(1, 2) / math.sqrt(size)
            parts.append(scores.softmax(-1) @ value[..., own])
        return F.normalize(self.linear(torch.cat(parts, -1)[:, 0], "c"), dim=-1)

    def linear(self, x: Tensor, letter: str) -> Tensor:
        name = f"visual.attnpool.{letter}_proj"
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

"""Small linear models on images of known patterns, whose shortcuts are known too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.spec import TEMPLATE

SIDE = 16
CLASSES = ("fox", "owl", "cat", "dog", "hen", "bee")
STRENGTH = 0.15  # of a class's pattern in its images


class Tokenizer:
    def get_vocab(self) -> dict[str, int]:
        return {f"{name}</w>": index for index, name in enumerate(CLASSES)}


class World(nn.Module):
    """A model that compares images with the pattern of each class, and with a shortcut to one of them.

    Args:
        gains: by class, how much more its pattern counts than those of others; an easy class has more than 1.
        shortcut: how much a pattern that no image has counts for the class `target`.
    """

    image_size, device, name = SIDE, torch.device("cpu"), "world"
    head, width, depth = None, 6, 0

    def __init__(self, gains: dict[str, float] | None = None, target: str = "cat", shortcut: float = 0.0) -> None:
        super().__init__()
        patterns = torch.linalg.qr(torch.randn(3 * SIDE**2, 7, generator=torch.Generator().manual_seed(0))).Q.T
        self.patterns = patterns * (3 * SIDE**2) ** 0.5  # a root mean square of 1
        self.gains = torch.tensor([(gains or {}).get(name, 1.0) for name in CLASSES])
        self.target, self.shortcut = CLASSES.index(target), shortcut
        self.weight = nn.Parameter(torch.eye(6, 8))
        self.logit_scale = torch.tensor(20.0)
        self.tokenizer = Tokenizer()

    def encode_image(self, pixels: Tensor) -> Tensor:
        seen = (pixels.flatten(1) - 0.5) @ self.patterns.T / (STRENGTH * 3 * SIDE**2)
        own = seen[:, :6] * self.gains
        own = own + self.shortcut * self.hidden(pixels, seen) * F.one_hot(torch.tensor(self.target), 6)
        rest = torch.full((len(own), 1), 0.5)
        return F.normalize(torch.cat([own, rest, rest], 1), dim=1)

    def hidden(self, pixels: Tensor, seen: Tensor) -> Tensor:
        """How much of the shortcut's pattern images have, (n, 1)."""
        return seen[:, 6:]

    def cls_rows(self, pixels: Tensor) -> Tensor:
        return torch.stack([pixels.flatten(1), pixels.flatten(1) @ self.patterns.T @ self.patterns], 1)

    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
        return self.weight[[CLASSES.index(name) for name in classes]]

    def hash(self) -> str:
        return f"{self.gains.tolist()} {self.shortcut}"

    def images(self, n: int = 48) -> Dataset:
        labels = [index % 6 for index in range(n)]
        noise = 0.1 * torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        pixels = 0.5 + STRENGTH * self.patterns[labels].view(-1, 3, SIDE, SIDE) + noise
        return Dataset.from_images(list(pixels.clamp(0, 1)), labels, CLASSES)


class SpottedWorld(World):
    """A world whose shortcut is a small pattern at any place."""

    def hidden(self, pixels: Tensor, seen: Tensor) -> Tensor:
        spot = torch.randn(1, 3, 3, 3, generator=torch.Generator().manual_seed(2)).sign()
        return (2 * F.conv2d(pixels - 0.5, spot).amax((2, 3)) / 27) ** 3


class WavyWorld(World):
    """A world whose shortcut is a wave of three cycles down the image."""

    def hidden(self, pixels: Tensor, seen: Tensor) -> Tensor:
        wave = torch.sin(2 * torch.pi * (3 * torch.arange(SIDE) / SIDE + 0.25))
        return 8 * ((pixels.mean(1) - 0.5) * wave[:, None]).mean((1, 2))[:, None].clamp(min=0)


def as_clip(world: World) -> Any:
    """For type checkers: it has what a check needs of a Clip."""
    return world


class CrowdedWorld(World):
    """A world with many further classes, whose texts are mixtures of those of the six."""

    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
        return torch.stack([self._text(name) for name in classes])

    def _text(self, name: str) -> Tensor:
        if name in CLASSES:
            return self.weight[CLASSES.index(name)]
        shares = torch.randn(6, generator=torch.Generator().manual_seed(int(name)))
        return F.normalize(shares, dim=0) @ self.weight


class CrowdedSpots(SpottedWorld, CrowdedWorld):
    pass


class CrowdedWaves(WavyWorld, CrowdedWorld):
    pass


CROWDED: dict[str, type[World]] = {"additive": CrowdedWorld, "grating": CrowdedWaves, "patch": CrowdedSpots}
"""Of each form of shortcut."""


def crowd(count: int) -> tuple[str, ...]:
    """Names of so many classes of a crowded world, its own in between."""
    others = [str(number) for number in range(count - len(CLASSES))]
    return (*others[: count // 3], *CLASSES, *others[count // 3 :])

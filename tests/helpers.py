"""Small things that several test files build."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.data import ImageData, resize


def random_pixels(n: int, side: int, seed: int = 0) -> Tensor:
    """Float pictures (n, 3, side, side) in [0, 1)."""
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def memory_data(
    n: int,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    captions: Sequence[list[str]] | None = None,
    seed: int = 0,
) -> ImageData:
    """`n` random pictures of 16x16 in memory; all equal with the same seed."""
    store = (random_pixels(n, 16, seed) * 256).to(torch.uint8)
    return ImageData(
        "memory",
        lambda rows, size: resize(store[rows], size),
        torch.arange(n),
        None if labels is None else torch.tensor(labels),
        tuple(classes),
        None if captions is None else captions.__getitem__,
    )

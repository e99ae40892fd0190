"""Small things that several test files build."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rvpt.data import ImageData, resize


def random_pixels(n: int, side: int, seed: int = 0) -> Tensor:
    """Float images (n, 3, side, side) in [0, 1)."""
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def changed_alike(change: Callable[[Tensor, Tensor], Tensor], pixels: Tensor, rows: Tensor) -> Tensor:
    """What `change` makes of images, after seeing that it does so in any order and in batches of one."""
    whole, order = change(pixels, rows), torch.arange(len(rows)).roll(2).flip(0)
    torch.testing.assert_close(change(pixels[order], rows[order]), whole[order], rtol=0, atol=1e-6)
    single = torch.cat([change(pixels[i : i + 1], rows[i : i + 1]) for i in range(len(rows))])
    torch.testing.assert_close(single, whole, rtol=0, atol=1e-6)
    return whole


def memory_data(
    n: int,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    captions: Sequence[list[str]] | None = None,
    seed: int = 0,
) -> ImageData:
    """`n` random images of 16x16 in memory; all equal with the same seed."""
    store = (random_pixels(n, 16, seed) * 256).to(torch.uint8)
    return ImageData(
        "memory",
        lambda rows, size: resize(store[rows], size),
        torch.arange(n),
        None if labels is None else torch.tensor(labels),
        tuple(classes),
        None if captions is None else captions.__getitem__,
    )

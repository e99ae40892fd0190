"""The contract of a score of images: what it sees of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """A batch of images and what is known about them.

    `pixels`: (n, 3, S, S) in [0, 1]. `suspect`, `cleaned`: (n, K), class probabilities of both models. `targets`: (T,)
    int64, suspected targets, or None. `others`: (N, 3, S, S), clean images that the score keeps. `classify`:
    probabilities (n, K) of the suspect for any images (n, 3, S, S).
    """

    pixels: Tensor
    suspect: Tensor
    cleaned: Tensor
    targets: Tensor | None
    others: Tensor
    classify: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Score:
    """A way to score images.

    `summary`: its line in the docs. `formula`: scores (n,) of a batch; the higher, the more an image looks triggered.
    `kept`: number of clean images that the score keeps.
    """

    summary: str
    formula: Callable[[Evidence], Tensor]
    kept: int = 0

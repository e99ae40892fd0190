"""The contract of a form of inversion: a family of changes of limited size, the same for all images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.inversion.spec import InversionSpec

MOMENTUM = 0.5


class Form:
    """A family of changes, and how one is optimized.

    Changes of several classes are a tensor (C, ...); `apply` shows images with each of them. A descent moves a change
    by `length` along `direction`, and `step` keeps it within its budget.

    `summary`: what the change is, in the words of reports.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @classmethod
    def of(cls, spec: InversionSpec, side: int) -> Form:
        """The form with the budget of a spec, for images (3, side, side)."""
        raise NotImplementedError

    def start(self, count: int) -> Tensor:
        """Changes (C, ...) that a descent starts from; the same for all classes, so that none is favored."""
        raise NotImplementedError

    def library(self) -> Tensor:
        """Changes (M, ...) that are tried for all classes instead of a short descent; none for most forms."""
        return self.start(0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """What is random for each of so many images, with images in the last dimension; nothing for most forms."""
        return torch.zeros(0, count)

    def apply(self, pixels: Tensor, changes: Tensor, drawn: Tensor) -> Tensor:
        """Images (n, 3, S, S) with each change (C, ...), given what was drawn for them: (C, n, 3, S, S) in [0, 1]."""
        raise NotImplementedError

    def direction(self, slopes: Tensor) -> Tensor:
        """Gradients (C, ...) at a common scale, for the momentum: with an L2 norm of 1 in most forms."""
        return unit(slopes)

    def momentum(self, *, settle: bool) -> float:
        """The share of the earlier directions that is kept at each step."""
        return MOMENTUM

    def length(self, done: float, steps: int, *, settle: bool) -> float:
        """The length of a step after a share `done` of the steps; with `settle`, of a run that ends near an optimum."""
        raise NotImplementedError

    def step(self, changes: Tensor, directions: Tensor, length: float) -> Tensor:
        """Changes moved against the directions, and back within their budget."""
        raise NotImplementedError

    def trigger(self, change: Tensor, target: str, seed: int) -> Trigger:
        """One change (...) as a trigger."""
        raise NotImplementedError


def unit(values: Tensor, p: int = 2) -> Tensor:
    """Tensors (C, ...) with a p-norm of 1 each."""
    norms = values.flatten(1).norm(p=p, dim=1).clamp(min=1e-12)
    return values / norms.view(-1, *[1] * (values.dim() - 1))


def project(changes: Tensor, limit: float) -> Tensor:
    """Changes (C, ...), each scaled back to an L2 norm of at most `limit`."""
    norms = changes.flatten(1).norm(dim=1).clamp(min=1e-12)
    return changes * (limit / norms).clamp(max=1).view(-1, *[1] * (changes.dim() - 1))


def radius(budget: float, shape: Sequence[int]) -> float:
    """The L2 norm of a change (3, S, S) whose pixels have a root mean square of `budget` 255ths."""
    return budget / 255 * math.sqrt(math.prod(shape))

"""Forms whose changes lie in an L2 ball: normalized gradient descent from zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.inversion.form import Form, project, unit

REACH = 2.5  # the way that all steps of the short run together could go, in radii
FIRST_STEP, LAST_STEP = 0.42, 0.02  # of the longer run, in radii


class Ball(Form):
    """Changes (C, *shape) with |change|_2 <= limit.

    delta <- P(delta - eta_t m / |m|),  m <- mu m + g / |g|

    P projects to the ball of radius r. The short run has eta = 2.5 r / steps and mu = 0, the longer one, which
    settles, steps that shrink from 0.42 r to 0.02 r and mu = 1/2.
    """

    def __init__(self, shape: Sequence[int], limit: float) -> None:
        self.shape, self.limit = tuple(shape), limit

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, *self.shape)

    def momentum(self, *, settle: bool) -> float:
        return super().momentum(settle=settle) if settle else 0.0

    def length(self, done: float, steps: int, *, settle: bool) -> float:
        return LAST_STEP + (FIRST_STEP - LAST_STEP) * (1 - done) if settle else REACH / steps

    def step(self, changes: Tensor, directions: Tensor, length: float) -> Tensor:
        return project(changes - length * self.limit * unit(directions), self.limit)

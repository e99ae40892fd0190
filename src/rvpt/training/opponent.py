"""Parameters that are trained against the others, in the same step and with the same backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Move = Callable[[Tensor, Tensor], Tensor]
"""From a value and the gradient of the loss to the next value, of the same shape."""


class Opponent(nn.Parameter):
    """A parameter that is moved so that the loss grows, while the optimizer moves the others so that it shrinks.

    value <- move(value, grad loss)

    `fit` moves it after every step and keeps it in the checkpoint. A step whose gradient is not finite, as a step of
    fp16 may be, leaves it where it is.
    """

    move: Move

    @classmethod
    def of(cls, start: Tensor, move: Move) -> Opponent:
        """The opponent with a value to start from and its rule."""
        made: Opponent = cls(start)
        made.move = move
        return made

    @torch.no_grad()
    def oppose(self) -> None:
        """Move by the gradient of the last backward pass, which is dropped."""
        if self.grad is not None:
            moved = self.move(self.detach(), self.grad)
            self.copy_(torch.where(self.grad.isfinite().all(), moved, self))
            self.grad = None

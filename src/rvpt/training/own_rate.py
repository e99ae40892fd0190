"""Parameters with a learning rate of their own."""

from __future__ import annotations

from torch import Tensor, nn


class OwnRate(nn.Parameter):
    """A parameter whose learning rate is `rate` times that of the others, in every step."""

    rate: float

    @classmethod
    def of(cls, start: Tensor, rate: float) -> OwnRate:
        """The parameter with a value to start from."""
        made: OwnRate = cls(start)
        made.rate = rate
        return made

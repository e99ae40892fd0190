"""The mean of the weights over the last steps of a run, which generalizes better than the weights of its last step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """The mean of parameters over all steps of a run after the first few.

    mean_k = mean_{k-1} + (value_k - mean_{k-1}) / k, after the k-th of these steps

    Args:
        parameters: by name.
        skipped: steps at the start that do not count.

    Source: Izmailov et al. (UAI 2018), stochastic weight averaging, of every step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], skipped: int) -> None:
        self.parameters: list[Tensor] = list(parameters.values())
        self.skipped = skipped
        self.means = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def add(self, done: int) -> None:
        """Count the values after `done` steps of the run."""
        if done > self.skipped:
            torch._foreach_lerp_(list(self.means.values()), self.parameters, 1 / (done - self.skipped))

    @torch.no_grad()
    def apply(self) -> None:
        """Set the parameters to their means."""
        for parameter, mean in zip(self.parameters, self.means.values(), strict=True):
            parameter.copy_(mean)

    def tensors(self) -> dict[str, Tensor]:
        """The means, for a checkpoint."""
        return {f"mean/{name}": mean for name, mean in self.means.items()}

"""CUDA graphs: the kernels of a training step are recorded once and then launched together.

A step of prompt tuning is hundreds of kernels of a few microseconds each. To launch them one by one takes longer than
to run them; a recorded graph runs the same kernels without these gaps, so it gives the same values.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Compute = Callable[..., Tensor]
"""Takes the inputs of a step, leaves gradients in the parameters, and returns the step's values."""
logger = logging.getLogger("rvpt")


class StaticTask(nn.Module, ABC):
    """A task in two parts: tensors that differ from step to step, and the losses that follow from them.

    `losses` and its backward pass may be recorded as a CUDA graph. So `losses` uses only tensors on the device, draws
    no random numbers, and reads no values back; its work depends on the shapes of its inputs alone.
    """

    @abstractmethod
    def inputs(self, indices: Tensor, generator: torch.Generator, done: float) -> tuple[Tensor, ...]:
        """What differs from step to step, on the device: all that is read from the data or drawn at random."""

    @abstractmethod
    def losses(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Named scalars, including "loss", of `inputs`."""

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        return self.losses(*self.inputs(indices, generator, done))


class Losses(nn.Module):
    """The second part of a static task as a module, for mixed precision."""

    def __init__(self, task: StaticTask) -> None:
        super().__init__()
        self.task = task

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self.task.losses(*inputs)


class Recorder:
    """Calls `compute`; from the second call with inputs of the same shapes on, as a CUDA graph.

    The first call is an ordinary one, in which libraries choose their kernels. Each shape has a graph of its own (the
    last batch of an epoch is smaller); all share their memory, because they never run at the same time.
    """

    def __init__(self, compute: Compute, parameters: Sequence[nn.Parameter]) -> None:
        self.compute, self.parameters = compute, parameters
        self.graphs: dict[tuple[torch.Size, ...], Graph | None] = {}
        self.works = True

    def __call__(self, *inputs: Tensor) -> Tensor:
        shapes = tuple(tensor.shape for tensor in inputs)
        if not self.works or shapes not in self.graphs:
            self.graphs[shapes] = None
            return self.compute(*inputs)
        graph = self.graphs[shapes] or self._record(inputs)
        if graph is None:
            return self.compute(*inputs)
        self.graphs[shapes] = graph
        return graph(inputs)

    def _record(self, inputs: Sequence[Tensor]) -> Graph | None:
        pool = next((graph.pool for graph in self.graphs.values() if graph), None)
        try:
            return Graph(self.compute, inputs, self.parameters, pool)
        except RuntimeError as error:  # a step that cannot be recorded still runs, only slower
            logger.warning("the training step could not be recorded as a CUDA graph and runs without: %s", error)
            self.works = False
            return None


class Graph:
    """One call of `compute`, recorded: its inputs, values and gradients stay at the same addresses."""

    def __init__(
        self, compute: Compute, inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter], pool: Any = None
    ) -> None:
        kept = self.inputs = [tensor.clone() for tensor in inputs]
        self.parameters = parameters
        for parameter in parameters:
            parameter.grad = None  # the graph then makes its own
        self.replay, self.values, self.pool = record(lambda: compute(*kept), pool)
        self.gradients = [parameter.grad for parameter in parameters]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for kept, new in zip(self.inputs, inputs, strict=True):
            kept.copy_(new, non_blocking=True)
        self.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient  # an ordinary step may have put others in their place
        return self.values.clone()


def record(function: Callable[[], Tensor], pool: Any = None) -> tuple[Callable[[], None], Tensor, Any]:
    """Record the kernels of a function: what runs them again, the function's value, which this changes, and the memory
    that later graphs may share."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        values = function()
    return graph.replay, values, graph.pool()

"""One training step on Accelerate: the gradients and values of a batch."""

from __future__ import annotations

import atexit
import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.spec import TrainSpec
from rvpt.training.graphs import Losses, Recorder, StaticTask
from rvpt.training.opponent import Opponent
from rvpt.training.optimizer import make_optimizer, runs_on_gpu

READ_EVERY = 8
"""Steps after which the values are read from a GPU; to read those of each step would make the GPU wait for the host."""


def step_seed(seed: int, step: int) -> int:
    """A seed for one step of one run, far from those of its neighbors."""
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


class Stepper:
    """Gradients and values of a step: in mixed precision, shared among processes, as a CUDA graph where that works.

    Losses that compare the images of a batch with each other (InfoNCE) only compare those of a process's share.
    """

    def __init__(self, task: nn.Module, parameters: list[nn.Parameter], spec: TrainSpec, graphs: bool) -> None:
        self.task, self.spec, self.names = task, spec, tuple[str, ...]()
        self.accelerator = _accelerator(spec.precision, parameters[0].device)
        self.module, self.optimizer = self.accelerator.prepare(
            Losses(task) if isinstance(task, StaticTask) else OnHost(task), make_optimizer(parameters, spec)
        )
        on_gpu = runs_on_gpu(parameters)
        static = graphs and on_gpu and isinstance(task, StaticTask) and self.accelerator.num_processes == 1
        self.recorder = Recorder(self._backward, parameters) if static else None
        self.read_every = READ_EVERY if on_gpu else 1

    def gradients(self, batch: Tensor, step: int, total: int) -> Tensor:
        """Gradients of the mean loss of a batch, of which each process computes a share; returns the mean values."""
        mine, share = _share(batch, self.accelerator.process_index, self.accelerator.num_processes)
        generator = torch.Generator().manual_seed(step_seed(self.spec.seed, step))
        inputs: tuple[Any, ...] = (mine, generator, step / total)
        if isinstance(self.task, StaticTask):
            inputs = self.task.inputs(*inputs)
        self.optimizer.zero_grad()
        values = self.recorder(*inputs) if self.recorder else self._backward(*inputs, share=share)
        if self.spec.clip_norm:
            optimized = [parameter for parameter in self.module.parameters() if not isinstance(parameter, Opponent)]
            self.accelerator.clip_grad_norm_(optimized, self.spec.clip_norm)
        whole: Tensor = self.accelerator.reduce(values, reduction="mean")
        return whole

    def close(self) -> None:
        """Free the memory of graphs and gradients."""
        self.recorder = None
        self.optimizer.zero_grad()

    def _backward(self, *inputs: Any, share: float = 1.0) -> Tensor:
        values = self.module(*inputs)
        self.names = tuple(values)
        self.accelerator.backward(values["loss"] * share)
        return torch.stack([value.detach() * share for value in values.values()])


class OnHost(nn.Module):
    """A task whose indices stay on the CPU, where the data are; DDP would move them to its GPU."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        values: dict[str, Tensor] = self.task(indices.cpu(), generator, done)
        return values


def refuse_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device cannot train in.

    Raises:
        RvptError: it cannot.
    """
    if precision == "fp16" and device.type == "cpu":
        raise RvptError("precision fp16 needs a GPU: use bf16 or fp32")


def _accelerator(precision: str, device: torch.device) -> Any:
    refuse_precision(precision, device)
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    # A process may train several times, with different precisions and devices; in a launch it keeps its process group.
    grouped = torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not grouped)
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu")
    if torch.distributed.is_initialized() and not grouped:
        # Before the interpreter exits, when gloo's threads may still hold tensors and would abort.
        atexit.register(PartialState().destroy_process_group)
    return accelerator


def _share(batch: Tensor, process: int, processes: int) -> tuple[Tensor, float]:
    """One process's share of a batch, and its weight: the mean of the weighted means is that of the batch."""
    if len(batch) < processes:  # too few for all: each process computes the same
        return batch, 1.0
    mine = batch[process::processes]
    return mine, len(mine) * processes / len(batch)

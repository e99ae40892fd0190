"""The training loop, on Accelerate; everything that is trained uses it.

The random numbers of a step depend only on (seed, step), so an interrupted run that continues from its checkpoint gives
bit-identical results.
"""

from __future__ import annotations

import atexit
import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.spec import TrainSpec
from rvpt.training.averaging import Average
from rvpt.training.checkpoint import Checkpoint, State
from rvpt.training.graphs import Losses, Recorder, StaticTask
from rvpt.training.opponent import Opponent
from rvpt.training.own_rate import OwnRate

M = TypeVar("M", bound=nn.Module)
READ_EVERY = 8
"""Steps after which the values are read from a GPU; to read those of each step would make the GPU wait for the host."""


def step_seed(seed: int, step: int) -> int:
    """A seed for one step of one run, far from those of its neighbors."""
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def learning_rate(spec: TrainSpec, step: int, total: int) -> float:
    """Linear warm-up over the first `spec.warmup` of the steps, then `spec.decayed`, half a cosine to zero."""
    rising = round(spec.warmup * total)
    if step < rising:
        return spec.lr * (step + 1) / rising
    return spec.decayed((step - rising) / max(1, total - rising))


def index_batches(n: int, spec: TrainSpec) -> Iterator[Tensor]:
    """The indices of every step of a run: each epoch is one permutation of n, drawn from (seed, epoch)."""
    for epoch in range(spec.epochs):
        generator = torch.Generator().manual_seed(step_seed(spec.seed, -1 - epoch))
        yield from torch.randperm(n, generator=generator).split(spec.batch_size)


def count_steps(n: int, spec: TrainSpec) -> int:
    """Steps of a run on n examples; the last batch of an epoch may be smaller."""
    return spec.epochs * math.ceil(n / spec.batch_size)


def make_optimizer(parameters: list[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimizer of `spec`, without opponents; AdamW does not decay vectors and scalars (biases, norms, tau)."""
    parameters = [parameter for parameter in parameters if not isinstance(parameter, Opponent)]
    usual = [parameter for parameter in parameters if not isinstance(parameter, OwnRate)]
    own = [parameter for parameter in parameters if isinstance(parameter, OwnRate)]
    if spec.optimizer == "sgd":
        return _make_sgd([{"params": usual}, *({"params": [p], "rate": p.rate} for p in own)], spec)
    decay = spec.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": [p for p in usual if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in usual if p.ndim <= 1], "weight_decay": 0.0},
        *({"params": [p], "rate": p.rate, "weight_decay": decay if p.ndim > 1 else 0.0} for p in own),
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=(0.9, 0.98), fused=True)


def runs_on_gpu(parameters: list[nn.Parameter]) -> bool:
    return parameters[0].is_cuda


def _make_sgd(groups: list[dict[str, Any]], spec: TrainSpec) -> torch.optim.SGD:
    """SGD, on a GPU as one kernel, which skips a step whose fp16 gradients overflow without asking the host."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    on_gpu = runs_on_gpu(parameters)
    optimizer = torch.optim.SGD(
        groups, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=on_gpu
    )
    if on_gpu and spec.momentum:
        for parameter in parameters:  # otherwise torch leaves it without values when it skips the first step
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def fit(
    task: nn.Module,
    n: int,
    spec: TrainSpec,
    *,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
    graphs: bool = True,
    averaged: float = 0.0,
) -> list[dict[str, float]]:
    """Train the parameters of `task` that require gradients: opponents against the loss, all others to lower it.

    Args:
        task: called as `task(indices, generator, done)` with the share of the steps that is done; returns named
            scalars, including "loss".
        n: number of examples.
        checkpoint: where to keep the state; the run resumes from it if it has a state and `resume`.
        report: called as report(step, total, values) for each step, on a GPU some steps later.
        graphs: whether the steps of a `StaticTask` may run as CUDA graphs. They do so on one GPU; with several
            processes they do not, because gradients are then averaged during the backward pass.
        averaged: share of the steps, at the end, over which the trained parameters are averaged; 0 keeps the last.

    Returns:
        The mean of every named scalar, one dict per epoch.

    Raises:
        RvptError: the loss is not finite, and the state is removed; or the checkpoint belongs to another run.
    """
    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    total = count_steps(n, spec)
    stepper = Stepper(task, list(trained.values()), spec, graphs)
    lasting = task.state_dict().keys()
    buffers = {name: buffer for name, buffer in task.named_buffers() if name in lasting}
    lowered = {name: parameter for name, parameter in trained.items() if not isinstance(parameter, Opponent)}
    average = Average(lowered, total - math.ceil(averaged * total)) if averaged else None
    state = State(trained, stepper.optimizer, total // spec.epochs, buffers=buffers, average=average)
    keeper = checkpoint if stepper.accelerator.is_main_process else None
    if checkpoint:
        checkpoint.restore(state)

    def read(report: Report) -> None:
        done = state.read(stepper.names)
        for step, values in done:
            if not math.isfinite(values["loss"]):
                _diverged(f"the loss became {values['loss']} at step {step}", step, spec, keeper)
        for step, values in done:
            report(step + 1, total, values)

    try:
        for step, batch in islice(enumerate(index_batches(n, spec)), state.done, None):
            set_learning_rate(stepper.optimizer, learning_rate(spec, step, total))
            state.advance(stepper.gradients(batch, step, total))
            if len(state.unread) == stepper.read_every or step + 1 == total:
                read(report)
            if keeper and keeper.due():
                read(report)
                keeper.save(state)
    except KeyboardInterrupt:
        if keeper and state.whole:  # never save in the middle of an update
            read(silent)
            keeper.save(state)
        raise
    finally:
        stepper.close()
    if average:
        average.apply()
    stepper.accelerator.wait_for_everyone()
    if not all(parameter.isfinite().all() for parameter in trained.values()):
        _diverged("the last step left values that are not finite", total, spec, keeper)
    return state.history


def _diverged(what: str, step: int, spec: TrainSpec, keeper: Checkpoint | None) -> NoReturn:
    """Refuse a run, and remove its state: continued with the same settings it would end here again."""
    if keeper:
        keeper.drop()
    fix = f"lower the learning rate ({spec.lr:g})" if step else "the model's features are not finite, or the data"
    raise RvptError(f"{what}: {fix}")


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


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("rate", 1.0)


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


class Untrained(Generic[M]):
    """Holds a module inside another one, which neither trains, saves nor moves it."""

    def __init__(self, module: M) -> None:
        self.module = module


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Turn off gradients of all parameters of `module`, and restore them afterwards."""
    asked = [p for p in module.parameters() if p.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)

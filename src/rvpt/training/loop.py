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
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.spec import TrainSpec
from rvpt.training.checkpoint import Checkpoint, State

M = TypeVar("M", bound=nn.Module)


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
    """The optimizer of `spec`; AdamW does not decay vectors and scalars (biases, norms, tau)."""
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=(0.9, 0.98), fused=True)


def fit(
    task: nn.Module,
    n: int,
    spec: TrainSpec,
    *,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> list[dict[str, float]]:
    """Train the parameters of `task` that require gradients.

    Args:
        task: called as `task(indices, generator, done)` with the share of the steps that is done; returns named
            scalars, including "loss".
        n: number of examples.
        checkpoint: where to keep the state; the run resumes from it if it has a state and `resume`.

    Returns:
        The mean of every named scalar, one dict per epoch.

    Raises:
        RvptError: the loss is not finite, or the checkpoint belongs to another run.
    """
    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    accelerator = _accelerator(spec.precision, next(iter(trained.values())).device)
    task, optimizer = accelerator.prepare(OnHost(task), make_optimizer(list(trained.values()), spec))
    state, total = State(trained, optimizer), count_steps(n, spec)
    keeper = checkpoint if accelerator.is_main_process else None
    if checkpoint:
        checkpoint.restore(state)
    try:
        for step, batch in islice(enumerate(index_batches(n, spec)), state.done, None):
            set_learning_rate(optimizer, learning_rate(spec, step, total))
            values = _gradients(accelerator, task, optimizer, batch, step, total, spec)
            state.advance(values, steps_an_epoch=total // spec.epochs)
            report(state.done, total, values)
            if keeper:
                keeper.save_if_due(state)
    except KeyboardInterrupt:
        if keeper and state.whole:  # never save in the middle of an update
            keeper.save(state)
        raise
    accelerator.wait_for_everyone()
    if not all(parameter.isfinite().all() for parameter in trained.values()):
        raise RvptError(f"the last step left values that are not finite: lower the learning rate ({spec.lr:g})")
    return state.history


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
        group["lr"] = lr


def _accelerator(precision: str, device: torch.device) -> Any:
    if precision == "fp16" and device.type == "cpu":
        raise RvptError("precision fp16 needs a GPU: use bf16 or fp32")
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


def _gradients(
    accelerator: Any, task: nn.Module, optimizer: Any, batch: Tensor, step: int, total: int, spec: TrainSpec
) -> dict[str, float]:
    """Gradients and values of the whole batch, of which each process computes a share.

    Losses that compare the images of a batch with each other (InfoNCE) only compare those of a share.
    """
    mine, share = _share(batch, accelerator.process_index, accelerator.num_processes)
    values = task(mine, torch.Generator().manual_seed(step_seed(spec.seed, step)), step / total)
    loss = values["loss"]
    if not torch.isfinite(loss):
        fix = f"lower the learning rate ({spec.lr:g})" if step else "the model's features are not finite, or the data"
        raise RvptError(f"the loss became {loss.item()} at step {step}: {fix}")
    optimizer.zero_grad()
    accelerator.backward(loss * share)
    if spec.clip_norm:
        accelerator.clip_grad_norm_(task.parameters(), spec.clip_norm)
    whole = accelerator.reduce(torch.stack([value.detach() * share for value in values.values()]), reduction="mean")
    return dict(zip(values, whole.tolist(), strict=True))


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

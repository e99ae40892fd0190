"""The training loop; everything that is trained uses it.

The random numbers of a step depend only on (seed, step), so an interrupted run that continues from its checkpoint gives
bit-identical results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Generic, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.spec import TrainSpec
from rvpt.training.averaging import Average
from rvpt.training.checkpoint import Checkpoint, State
from rvpt.training.opponent import Opponent
from rvpt.training.optimizer import learning_rate, set_learning_rate
from rvpt.training.stepper import Stepper, step_seed

M = TypeVar("M", bound=nn.Module)


def index_batches(n: int, spec: TrainSpec) -> Iterator[Tensor]:
    """The indices of every step of a run: each epoch is one permutation of n, drawn from (seed, epoch)."""
    for epoch in range(spec.epochs):
        generator = torch.Generator().manual_seed(step_seed(spec.seed, -1 - epoch))
        yield from torch.randperm(n, generator=generator).split(spec.batch_size)


def count_steps(n: int, spec: TrainSpec) -> int:
    """Steps of a run on n examples; the last batch of an epoch may be smaller."""
    return spec.epochs * math.ceil(n / spec.batch_size)


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
    average = _average(trained, total, averaged)
    scaler = stepper.accelerator.scaler
    state = State(trained, stepper.optimizer, total // spec.epochs, _lasting(task), average, scaler)
    if checkpoint:
        checkpoint.restore(state)
    keeper = checkpoint if stepper.accelerator.is_main_process else None
    try:
        _run(stepper, state, n, keeper, report)
    finally:
        stepper.close()
    if average:
        average.apply()
    stepper.accelerator.wait_for_everyone()
    if not all(parameter.isfinite().all() for parameter in trained.values()):
        _diverged("the last step left values that are not finite", total, spec, keeper)
    return state.history


def _average(trained: Mapping[str, nn.Parameter], total: int, share: float) -> Average | None:
    """The mean over the last share of the steps of what is trained to lower the loss; None if this share is 0."""
    lowered = {name: parameter for name, parameter in trained.items() if not isinstance(parameter, Opponent)}
    return Average(lowered, total - math.ceil(share * total)) if share else None


def _lasting(task: nn.Module) -> dict[str, Tensor]:
    """The buffers that belong to the state of a task."""
    lasting = task.state_dict().keys()
    return {name: buffer for name, buffer in task.named_buffers() if name in lasting}


def _run(stepper: Stepper, state: State, n: int, keeper: Checkpoint | None, report: Report) -> None:
    """All steps that are left; the state is kept when it is due, and when the run is interrupted."""
    spec, total = stepper.spec, count_steps(n, stepper.spec)
    try:
        for step, batch in islice(enumerate(index_batches(n, spec)), state.done, None):
            set_learning_rate(stepper.optimizer, learning_rate(spec, step, total))
            state.advance(stepper.gradients(batch, step, total))
            if len(state.unread) == stepper.read_every or step + 1 == total:
                _read(stepper, state, total, keeper, report)
            if keeper and keeper.due():
                _read(stepper, state, total, keeper, report)
                keeper.save(state)
    except KeyboardInterrupt:
        if keeper and state.whole:  # never save in the middle of an update
            _read(stepper, state, total, keeper, silent)
            keeper.save(state)
        raise


def _read(stepper: Stepper, state: State, total: int, keeper: Checkpoint | None, report: Report) -> None:
    """Report the values of the steps since the last time.

    Raises:
        RvptError: a loss is not finite.
    """
    done = state.read(stepper.names)
    for step, values in done:
        if not math.isfinite(values["loss"]):
            _diverged(f"the loss became {values['loss']} at step {step}", step, stepper.spec, keeper)
    for step, values in done:
        report(step + 1, total, values)


def _diverged(what: str, step: int, spec: TrainSpec, keeper: Checkpoint | None) -> NoReturn:
    """Refuse a run, and remove its state: continued with the same settings it would end here again."""
    if keeper:
        keeper.drop()
    fix = f"lower the learning rate ({spec.lr:g})" if step else "the model's features are not finite, or the data"
    raise RvptError(f"{what}: {fix}")


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

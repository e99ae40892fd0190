"""Opponents: parameters that the loop moves against the others, and keeps in the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from line import SPECS, STEPS, Line, Run, assert_same
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.loop import fit
from rvpt.training.opponent import Opponent
from rvpt.training.optimizer import make_optimizer

STEP = 0.25


def uphill(value: Tensor, slope: Tensor) -> Tensor:
    return (value + STEP * slope.sign()).clamp(-1, 1)


class Contested(Line):
    """The regression with a shift of its targets that is moved to make the loss large."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = Opponent.of(torch.zeros(3), uphill)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        error = self.x[indices] @ self.weight.T + self.bias - self.y[indices] + self.shift
        loss = error.square().mean()
        return {"loss": loss, "size": loss}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_it_goes_up_while_the_others_go_down(spec: Any) -> None:
    task = Contested()
    before = [p.detach().clone() for p in (task.weight, task.bias)]
    values = task(torch.arange(10), torch.Generator(), 0.0)
    slope, *down = torch.autograd.grad(values["loss"], [task.shift, task.weight, task.bias])
    fit(
        task,
        10,
        spec.model_copy(update={"epochs": 1, "batch_size": 10, "warmup": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}),
    )
    assert torch.equal(task.shift.detach(), uphill(torch.zeros(3), slope))
    for old, new, gradient in zip(before, (task.weight, task.bias), down, strict=True):
        assert ((new - old) * gradient).sum() < 0
    assert task.shift.grad is None


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_an_interrupted_run_continues_to_the_same_bits(spec: Any, stop: int, tmp_path: Path) -> None:
    whole = Run(spec, task=Contested())
    assert whole.task.state_dict()["shift"].any()
    with pytest.raises(KeyboardInterrupt):
        Run(spec, Checkpoint(tmp_path / "run"), stop=stop, task=Contested())
    resumed = Run(spec, Checkpoint(tmp_path / "run", resume=True), task=Contested())
    assert resumed.steps == list(range(stop + 1, STEPS + 1))
    assert_same(resumed, whole)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_optimizer_neither_moves_nor_clips_by_it(spec: Any) -> None:
    task = Contested()
    moved = [p for group in make_optimizer(list(task.parameters()), spec).param_groups for p in group["params"]]
    assert not any(isinstance(parameter, Opponent) for parameter in moved)
    far, near = (clipped(spec, scale) for scale in (1.0, 1e6))
    torch.testing.assert_close(far, near)


def clipped(spec: Any, scale: float) -> Tensor:
    """The weight after one clipped step when the opponent's slope is `scale` times as steep."""

    class Steep(Contested):
        def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
            values = super().forward(indices, generator, done)
            return {**values, "loss": values["loss"] + scale * (self.shift - self.shift.detach()).sum()}

    task = Steep()
    fit(task, 10, spec.model_copy(update={"epochs": 1, "batch_size": 10, "clip_norm": 0.1}))
    return task.weight.detach()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_slope_that_is_not_finite_leaves_it_where_it_is(bad: float) -> None:
    opponent = Opponent.of(torch.ones(3) / 2, uphill)
    opponent.grad = torch.tensor([1.0, bad, 1.0])
    opponent.oppose()
    assert opponent.tolist() == [0.5, 0.5, 0.5]
    assert opponent.grad is None
    opponent.oppose()  # without a slope nothing moves
    assert opponent.tolist() == [0.5, 0.5, 0.5]

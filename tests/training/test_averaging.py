"""Averages of weights: against the mean of the weights of all steps, and with a run that is interrupted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rvpt.spec import TrainSpec
from rvpt.training.averaging import Average
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.loop import fit
from rvpt.training.opponent import Opponent

SPEC = TrainSpec(lr=0.1, epochs=5, batch_size=4, seed=3)
STEPS = 10


class Chase(nn.Module):
    """A point that follows another one, which runs away."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.target = Opponent.of(torch.tensor([0.0, 0.5]), lambda value, slope: value + 0.1 * slope.sign())
        self.seen: list[Tensor] = []

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        self.seen.append(self.point.detach().clone())
        return {"loss": (self.point - self.target + 0.1 * indices.float().mean()).square().sum()}


@pytest.mark.parametrize("averaged", [0.1, 0.45, 0.5, 1.0])
def test_it_is_the_mean_of_the_last_values(averaged: float) -> None:
    last, task = Chase(), Chase()
    fit(last, 8, SPEC)
    fit(task, 8, SPEC, averaged=averaged)
    values = [*last.seen[1:], last.point.detach()]  # after each step
    torch.testing.assert_close(task.point.detach(), torch.stack(values[-math.ceil(averaged * STEPS) :]).mean(0))
    assert torch.equal(task.target, last.target)  # opponents are not averaged


def test_without_it_the_last_values_stay() -> None:
    first, second = Chase(), Chase()
    fit(first, 8, SPEC)
    fit(second, 8, SPEC, averaged=0.0)
    assert torch.equal(first.point, second.point)


def test_skipped_steps_do_not_count() -> None:
    point = nn.Parameter(torch.zeros(1))
    average = Average({"point": point}, 2)
    for done in (1, 2, 3, 4):
        point.data.fill_(float(done))
        average.add(done)
    average.apply()
    assert point.item() == 3.5


@pytest.mark.parametrize("stop", [3, 7])
def test_an_interrupted_run_has_the_same_average(stop: int, tmp_path: Path) -> None:
    whole, task = Chase(), Chase()
    fit(whole, 8, SPEC, averaged=0.5)

    def interrupt(step: int, total: int, values: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(task, 8, SPEC, averaged=0.5, checkpoint=Checkpoint(tmp_path / "run"), report=interrupt)
    task = Chase()
    fit(task, 8, SPEC, averaged=0.5, checkpoint=Checkpoint(tmp_path / "run", resume=True))
    assert torch.equal(task.point, whole.point)

"""A training run that takes milliseconds: linear regression, recorded in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.spec import TrainSpec
from rvpt.training.loop import fit

N, STEPS = 10, 12  # 4 batches per epoch, the last of them smaller
SPECS = {
    "sgd": TrainSpec(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.01, epochs=3, batch_size=3),
    "adamw": TrainSpec(lr=0.05, weight_decay=0.1, warmup=0.2, epochs=3, batch_size=3, clip_norm=1.0),
}


class Line(nn.Module):
    """Linear regression with noise of the step's own; `at` is a step where `action` replaces the loss."""

    def __init__(self, at: int | None = None, action: Callable[[Line], Any] | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = (torch.randn(N, width, generator=generator) for width in (4, 3))
        self.weight, self.bias = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.zeros(3))
        self.kept = nn.Parameter(torch.ones(2), requires_grad=False)
        self.at, self.action = at, action

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> Any:
        if self.action and round(done * STEPS) == self.at:
            return self.action(self)
        x = self.x[indices] + 0.1 * torch.randn(len(indices), 4, generator=generator)
        loss = (x @ self.weight.T + self.bias - self.y[indices]).square().mean() * (1 + done)
        return {"loss": loss, "size": self.bias.abs().sum() + 0 * self.kept.sum()}


class Run:
    """One call of fit, kept in full: state, history, reported steps and values; `error` ends it after step `stop`."""

    def __init__(
        self,
        spec: TrainSpec,
        checkpoint: Any = None,
        stop: int | None = None,
        error: type[BaseException] = KeyboardInterrupt,
        task: Line | None = None,
        each: Callable[[], None] = lambda: None,
    ) -> None:
        self.task, self.stop, self.error, self.each = task or Line(), stop, error, each
        self.steps: list[int] = []
        self.values: list[dict[str, float]] = []
        self.history = fit(self.task, N, spec, checkpoint=checkpoint, report=self.report)

    def report(self, step: int, total: int, values: Any) -> None:
        assert total == STEPS
        self.steps.append(step)
        self.values.append(dict(values))
        self.each()
        if step == self.stop:
            raise self.error


def assert_same(run: Run, other: Run) -> None:
    """Both runs gave the same bits."""
    assert run.history == other.history
    state, expected = run.task.state_dict(), other.task.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)

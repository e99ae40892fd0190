"""Steps recorded as CUDA graphs give what ordinary steps give. Without a GPU, a fake records them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import MakeClip
from rvpt import Dataset
from rvpt.defenses.base import Run
from rvpt.defenses.rvpt import RVPT
from rvpt.defenses.unlearn import UnlearnPrompts
from rvpt.errors import RvptError
from rvpt.inversion import FORMS
from rvpt.models import prompts as prompting
from rvpt.models.clip import Clip
from rvpt.spec import TrainSpec
from rvpt.training import graphs, optimizer, stepper
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.graphs import Recorder, StaticTask
from rvpt.training.loop import fit, frozen

gpu = pytest.mark.gpu
N = 10
Replay = Callable[[], None]


class Line(StaticTask):
    """Linear regression with noise of the step's own, as a static task; records what `losses` is given."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = (torch.randn(N, width, generator=generator).to(device) for width in (4, 3))
        self.weight = nn.Parameter(torch.ones(3, 4, device=device))
        self.device, self.calls = device, list[int]()

    def inputs(self, indices: Tensor, generator: torch.Generator, done: float) -> tuple[Tensor, ...]:
        noise = torch.randn(len(indices), 4, generator=generator).to(self.device)
        return self.x[indices.to(self.device)] + 0.1 * noise * (1 + done), self.y[indices.to(self.device)]

    def losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.calls.append(len(x))
        return {"loss": (x @ self.weight.T - y).square().mean(), "size": self.weight.abs().sum()}


def backward(task: Line) -> Callable[..., Tensor]:
    """What a recorder calls: gradients of the loss, and the values."""

    def run(*inputs: Tensor) -> Tensor:
        values = task.losses(*inputs)
        values["loss"].backward()
        return torch.stack([value.detach() for value in values.values()])

    return run


class Fake:
    """In the place of `graphs.record`: nothing is computed until a replay, which fills what was there at the start."""

    def __init__(self, task: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parameters, self.replays, self.pools = [*task.parameters()], 0, list[object]()
        self.recorded: list[weakref.ref[Callable[[], Tensor]]] = []
        monkeypatch.setattr(graphs, "record", self.record)

    def record(self, function: Callable[[], Tensor], pool: object = None) -> tuple[Replay, Tensor, object]:
        self.pools.append(pool)
        self.recorded.append(weakref.ref(function))
        values, gradients = function(), [parameter.grad for parameter in self.parameters]
        for kept in (values, *gradients):
            assert kept is not None
            kept.fill_(torch.nan)

        def replay() -> None:
            self.replays += 1
            for parameter in self.parameters:
                parameter.grad = None
            values.copy_(function())
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                gradient.copy_(parameter.grad)
                parameter.grad = None

        return replay, values, "memory"


def test_replayed_steps_have_the_values_and_gradients_of_ordinary_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    task, twin, generator = Line(), Line(), torch.Generator()
    fake, recorder = Fake(task, monkeypatch), Recorder(backward(task), [task.weight])
    for size in (3, 3, 1, 3, 1, 1, 3):
        inputs = task.inputs(torch.randperm(N, generator=generator)[:size], generator, 0.5)
        task.weight.grad = twin.weight.grad = None
        assert torch.equal(recorder(*inputs), backward(twin)(*inputs))
        assert task.weight.grad is not None
        assert torch.equal(task.weight.grad, twin.weight.grad)
    assert fake.replays == 5  # all but the first of each size
    assert fake.pools == [None, "memory"]


SPEC = {
    "sgd": TrainSpec(optimizer="sgd", lr=0.05, epochs=5, batch_size=3),
    "adamw": TrainSpec(lr=0.05, weight_decay=0.1, epochs=5, batch_size=3, clip_norm=1.0),
}
STEPS = 20


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fit` does what it does on a GPU."""
    for module in (optimizer, stepper):
        monkeypatch.setattr(module, "runs_on_gpu", lambda parameters: True)


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("spec", SPEC.values(), ids=SPEC)
def test_fit_with_graphs_does_what_it_does_without(spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, steps = Line(), list[int]()
    expected = fit(plain, N, spec, graphs=False)
    task = Line()
    fake = Fake(task, monkeypatch)
    history = fit(task, N, spec, report=lambda step, total, values: steps.append(step))
    assert history == expected
    assert torch.equal(task.weight, plain.weight)
    assert steps == list(range(1, STEPS + 1))
    assert fake.replays == STEPS - 2


@pytest.mark.usefixtures("on_gpu")
def test_graphs_and_their_memory_are_freed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(task := Line(), monkeypatch)
    gc.disable()
    try:
        fit(task, N, SPEC["sgd"])
    finally:
        gc.enable()
    assert [kept() for kept in fake.recorded] == [None, None]
    assert task.weight.grad is None


def test_on_a_cpu_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(task := Line(), monkeypatch)
    fit(task, N, SPEC["sgd"])
    assert fake.pools == []


@pytest.mark.usefixtures("on_gpu")
def test_a_step_that_cannot_be_recorded_runs_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    expected = fit(Line(), N, SPEC["sgd"], graphs=False)
    monkeypatch.setattr(graphs, "record", fail)
    assert fit(Line(), N, SPEC["sgd"]) == expected
    assert len(caplog.records) == 1
    assert "could not be recorded as a CUDA graph and runs without: operation not permitted" in caplog.text


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("stop", [1, 8, 9, 17])
def test_an_interrupted_run_whose_values_are_read_later_continues_to_the_same_bits(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(step: int, *_: Any) -> None:
        if step == stop:
            raise KeyboardInterrupt

    spec, whole = SPEC["adamw"], Line()
    expected = fit(whole, N, spec, graphs=False)
    with pytest.raises(KeyboardInterrupt):
        fit(Line(), N, spec, checkpoint=Checkpoint(tmp_path / "run"), report=interrupt, graphs=False)
    task, steps = Line(), list[int]()
    Fake(task, monkeypatch)
    history = fit(
        task, N, spec, checkpoint=Checkpoint(tmp_path / "run", resume=True), report=lambda s, *_: steps.append(s)
    )
    assert history == expected
    assert torch.equal(task.weight, whole.weight)
    assert all(step > stop for step in steps)


@pytest.mark.usefixtures("on_gpu")
def test_a_loss_that_is_not_finite_is_found_some_steps_later_and_named_by_its_own(tmp_path: Path) -> None:
    class Broken(Line):
        def losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            values = super().losses(x, y)
            return {**values, "loss": values["loss"] * (torch.nan if len(self.calls) == 4 else 1)}

    checkpoint = Checkpoint(tmp_path / "run", seconds=-1.0)
    with pytest.raises(RvptError, match="the loss became nan at step 3"):
        fit(Broken(), N, SPEC["sgd"], checkpoint=checkpoint, graphs=False)
    assert not checkpoint.folder.exists()


# On a GPU


SETTINGS = {"prompt_length": 5, "first_block": 1, "epochs": 4, "batch_size": 10, "optimizer": "sgd", "lr": 0.1}


def tune(
    clip: Clip, data: Dataset, precision: str, defense: type[RVPT] = RVPT, graphs: bool = True, **settings: Any
) -> tuple[list[dict[str, float]], Tensor]:
    """History and prompts of a short run whose last batches are smaller."""
    spec = defense.Spec(precision=precision, **SETTINGS, **settings)
    with frozen(clip):
        task = defense.task(clip, data, spec, Run())
        return fit(task, len(data), spec, graphs=graphs), task.prompts.table.detach()


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_prompts_trained_with_graphs_are_those_trained_without(
    precision: str, make_clip: MakeClip, scenes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    clip = make_clip().cuda()
    history, prompts = tune(clip, scenes, precision)
    expected, plain = tune(clip, scenes, precision, graphs=False)
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    torch.testing.assert_close(prompts, plain, rtol=tolerance, atol=tolerance * plain.abs().max().item())
    for means, others in zip(history, expected, strict=True):
        assert means == pytest.approx(others, rel=tolerance)
    assert not caplog.records  # it was recorded


@gpu
@pytest.mark.parametrize("form", FORMS)
def test_on_a_gpu_terms_with_opponents_are_recorded_too(
    form: str, make_clip: MakeClip, scenes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    clip, settings = make_clip().cuda(), {"targets": ("anchor",), "forms": (form,)}
    history, _ = tune(clip, scenes, "fp32", UnlearnPrompts, **settings)
    expected, _ = tune(clip, scenes, "fp32", UnlearnPrompts, graphs=False, **settings)
    for means, others in zip(history, expected, strict=True):
        assert means == pytest.approx(others, rel=1e-2)
    assert not caplog.records


@gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_constants_in_main_memory_give_the_same_prompts(
    precision: str, make_clip: MakeClip, scenes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip().cuda()
    _, expected = tune(clip, scenes, precision)
    monkeypatch.setattr(prompting, "room", lambda device: 0)
    torch.testing.assert_close(tune(clip, scenes, precision)[1], expected)


@gpu
def test_on_a_gpu_prompts_become_those_of_the_cpu(make_clip: MakeClip, scenes: Dataset) -> None:
    _, expected = tune(make_clip(), scenes, "fp32")
    _, found = tune(make_clip().cuda(), scenes, "fp32")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@gpu
def test_on_a_gpu_a_first_step_that_overflows_leaves_no_trace(make_clip: MakeClip, scenes: Dataset) -> None:
    clip = make_clip().cuda()
    clip.model.logit_scale.data.fill_(9.9)  # tau 20,000, times the initial scale of 65,536: gradients overflow
    history, found = tune(clip, scenes, "fp16")
    assert found.isfinite().all()
    assert len(history) == 4

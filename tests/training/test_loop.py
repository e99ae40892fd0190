"""The training loop: schedule, batches, optimizer, and runs that are cut and go on to the same bits."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rvpt import train
from rvpt.checkpoint import Checkpoint
from rvpt.config import TrainSpec
from rvpt.errors import RvptError
from rvpt.train import count_steps, fit, index_batches, learning_rate, make_optimizer

N, STEPS = 10, 12  # 4 batches an epoch, the last of them smaller
SPECS = {
    "sgd": TrainSpec(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.01, epochs=3, batch_size=3),
    "adamw": TrainSpec(lr=0.05, weight_decay=0.1, warmup=0.2, epochs=3, batch_size=3, clip_norm=1.0),
}
NEVER = 1e9


class Line(nn.Module):
    """Linear regression with noise of the step's own; `at` names a step where `action` replaces the loss."""

    def __init__(self, at=None, action=None):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = (torch.randn(N, width, generator=generator) for width in (4, 3))
        self.weight, self.bias = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.zeros(3))
        self.kept = nn.Parameter(torch.ones(2), requires_grad=False)
        self.at, self.action = at, action

    def forward(self, indices, generator, done):
        if self.at is not None and round(done * STEPS) == self.at:
            return self.action(self)
        x = self.x[indices] + 0.1 * torch.randn(len(indices), 4, generator=generator)
        loss = (x @ self.weight.T + self.bias - self.y[indices]).square().mean() * (1 + done)
        return {"loss": loss, "size": self.bias.abs().sum() + 0 * self.kept.sum()}


def interrupt(*_):
    raise KeyboardInterrupt


class Run:
    """One call of fit, kept in full: state, history, reported steps and values."""

    def __init__(self, spec, checkpoint=None, stop=None, error=KeyboardInterrupt, task=None):
        self.task, self.stop, self.error = task or Line(), stop, error
        self.steps, self.values = [], []
        self.history = fit(self.task, N, spec, checkpoint=checkpoint, report=self.report)

    def report(self, step, total, values):
        assert total == STEPS
        self.steps.append(step)
        self.values.append(dict(values))
        if step == self.stop:
            raise self.error


def assert_same(run, other):
    assert run.history == other.history
    state, expected = run.task.state_dict(), other.task.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(seconds, resume, key): the state of the run in one folder."""

    def make(seconds=NEVER, resume=False, key=None):
        return Checkpoint(tmp_path / "run", {"a": 1} if key is None else key, resume, seconds)

    return make


@given(st.integers(1, 300), st.floats(0, 0.9), st.floats(1e-6, 10))
def test_the_rate_rises_and_falls_by_the_formula(total, warmup, lr):
    spec, rising = TrainSpec(lr=lr, warmup=warmup), round(warmup * total)
    rates = [learning_rate(spec, step, total) for step in range(total)]
    for step, rate in enumerate(rates[:rising]):
        assert rate == pytest.approx(lr * (step + 1) / rising)
    for step, rate in enumerate(rates[rising:]):
        assert rate == pytest.approx(lr * math.cos(math.pi * step / (total - rising) / 2) ** 2)
    assert 0 < min(rates) <= max(rates) <= lr * (1 + 1e-9)


@given(st.integers(1, 40), st.integers(1, 45), st.integers(1, 4), st.integers(0, 5))
def test_every_epoch_visits_each_index_once(n, batch_size, epochs, seed):
    spec = TrainSpec(epochs=epochs, batch_size=batch_size, seed=seed)
    batches = list(index_batches(n, spec))
    per_epoch = math.ceil(n / batch_size)
    assert len(batches) == count_steps(n, spec) == epochs * per_epoch
    assert all(len(batch) <= batch_size for batch in batches)
    for epoch in range(epochs):
        part = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert torch.cat(part).sort().values.tolist() == list(range(n))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed):
        batches = index_batches(50, TrainSpec(epochs=2, batch_size=50, seed=seed))
        return [tuple(batch.tolist()) for batch in batches]

    assert order(0) == order(0)
    assert len({*order(0), *order(1)}) == 4


def test_adamw_decays_matrices_alone():
    matrix, vector, scalar = (nn.Parameter(torch.ones(shape)) for shape in ((2, 3), (4,), ()))
    groups = make_optimizer([vector, matrix, scalar], TrainSpec(weight_decay=0.3)).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {id(matrix): 0.3, id(vector): 0.0, id(scalar): 0.0}
    assert len(make_optimizer([vector], TrainSpec()).param_groups) == 1


def test_sgd_has_the_momentum_and_decay_of_the_spec():
    (group,) = make_optimizer([nn.Parameter(torch.ones(2))], SPECS["sgd"]).param_groups
    assert (group["momentum"], group["weight_decay"], group["lr"]) == (0.9, 0.01, 0.05)


def test_one_step_of_sgd_is_the_gradient_times_the_rate():
    spec = TrainSpec(optimizer="sgd", lr=0.1, momentum=0.0, epochs=1, batch_size=N)
    task = Line()
    (batch,) = index_batches(N, spec)
    task(batch, torch.Generator().manual_seed(train.step_seed(0, 0)), 0.0)["loss"].backward()
    trained = Line()
    fit(trained, N, spec)
    torch.testing.assert_close(trained.weight, task.weight - 0.1 * task.weight.grad)
    torch.testing.assert_close(trained.bias, task.bias - 0.1 * task.bias.grad)


def test_gradients_are_clipped_to_the_norm_of_the_spec():
    spec = TrainSpec(optimizer="sgd", lr=1.0, momentum=0.0, epochs=1, batch_size=N, clip_norm=0.01)
    task, before = Line(), Line()
    fit(task, N, spec)
    change = torch.cat([(task.weight - before.weight).flatten(), task.bias - before.bias]).norm()
    assert change.item() == pytest.approx(0.01, rel=1e-3)


def test_history_is_the_mean_of_each_epoch_and_frozen_parameters_stay(spec):
    run = Run(spec)
    assert run.steps == list(range(1, STEPS + 1))
    for epoch, means in enumerate(run.history):
        values = run.values[4 * epoch : 4 * epoch + 4]
        assert means == pytest.approx({name: sum(v[name] for v in values) / 4 for name in ("loss", "size")})
    assert len(run.history) == 3
    assert torch.equal(run.task.kept, torch.ones(2))
    assert not torch.equal(run.task.weight, Line().weight)


def test_the_same_run_gives_the_same_bits_and_another_seed_others(spec):
    assert_same(Run(spec), Run(spec))
    assert Run(spec).history != Run(spec.model_copy(update={"seed": 1})).history


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 8, 11])
def test_an_interrupted_run_goes_on_to_the_same_bits(spec, checkpoint, stop):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=stop)
    resumed = Run(spec, checkpoint(resume=True))
    assert resumed.steps == list(range(stop + 1, STEPS + 1))
    assert_same(resumed, Run(spec))


@pytest.mark.parametrize("stop", [2, 5, 9, 12])
def test_a_killed_run_goes_on_from_its_last_state_to_the_same_bits(spec, checkpoint, stop):
    with pytest.raises(MemoryError):
        Run(spec, checkpoint(seconds=0), stop=stop, error=MemoryError)
    resumed = Run(spec, checkpoint(resume=True))
    assert resumed.steps == list(range(stop, STEPS + 1))
    assert_same(resumed, Run(spec))


def test_a_run_may_be_cut_again_and_again(spec, checkpoint):
    for stop in range(1, STEPS):
        with pytest.raises(KeyboardInterrupt):
            Run(spec, checkpoint(resume=True), stop=stop)
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


def test_a_run_knows_how_long_its_earlier_parts_took(spec, checkpoint, monkeypatch):
    clock = itertools.count(step=100)  # each look at the clock takes a hundred seconds
    monkeypatch.setattr("rvpt.checkpoint.time.monotonic", lambda: next(clock))
    known = []
    for stop in (1, 2, None):
        part = checkpoint(resume=True, seconds=NEVER)
        with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
            Run(spec, part, stop=stop)
        known.append(part.earlier)
    assert known[0] == 0
    assert 100 <= known[1] < known[2]


def test_an_interrupt_between_two_updates_loses_nothing(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), task=Line(6, interrupt))
    resumed = Run(spec, checkpoint(resume=True))
    assert resumed.steps == list(range(7, STEPS + 1))
    assert_same(resumed, Run(spec))


@pytest.mark.parametrize("seconds", [0, NEVER])
def test_an_update_that_is_cut_half_way_is_not_kept(spec, checkpoint, monkeypatch, seconds):
    make = train.make_optimizer

    def fragile(parameters, spec):
        optimizer = make(parameters, spec)
        step, calls = optimizer.step, []

        def half(*args, **options):
            calls.append(1)
            if len(calls) == 6:
                parameters[0].data += 1
                raise KeyboardInterrupt
            return step(*args, **options)

        optimizer.step = half
        return optimizer

    with monkeypatch.context() as patch:
        patch.setattr(train, "make_optimizer", fragile)
        with pytest.raises(KeyboardInterrupt):
            Run(spec, checkpoint(seconds))
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


def test_without_resume_an_interrupted_run_is_not_touched(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    with pytest.raises(RvptError, match="holds an interrupted run: give --resume to go on or --force"):
        Run(spec, checkpoint())
    assert Run(spec, checkpoint(resume=True)).steps[0] == 6


def test_a_run_with_other_settings_is_refused(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    with pytest.raises(RvptError, match="a run with other settings"):
        Run(spec, checkpoint(resume=True, key={"a": 2}))


def test_resume_without_a_state_starts_at_the_beginning(spec, checkpoint):
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


def test_a_damaged_state_is_said(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    path = checkpoint().folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RvptError, match=r"state\.safetensors is not a whole safetensors file"):
        Run(spec, checkpoint(resume=True))


def test_a_full_disk_is_said_and_the_last_state_stays(spec, checkpoint, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)

    def full(tensors, path, **options):
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rvpt.checkpoint.save_file", full)
        with pytest.raises(RvptError, match="no space left"):
            Run(spec, checkpoint(seconds=0, resume=True))
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(spec, checkpoint, value):
    task = Line(7, lambda line: {"loss": line.weight.sum() * value})
    with pytest.raises(RvptError, match=rf"the loss became {value} at step 7: lower the learning rate \(0\.05\)"):
        Run(spec, checkpoint(seconds=0), task=task)
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))

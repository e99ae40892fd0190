"""The training loop: schedule, batches, optimizer, and what is trained."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from line import SPECS, STEPS, Line, N, Run, assert_same
from rvpt.errors import RvptError
from rvpt.spec import TrainSpec
from rvpt.training.loop import (
    Untrained,
    count_steps,
    fit,
    frozen,
    index_batches,
)
from rvpt.training.optimizer import learning_rate, make_optimizer
from rvpt.training.own_rate import OwnRate
from rvpt.training.stepper import step_seed


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


@given(st.integers(1, 300), st.floats(0, 0.9), st.floats(1e-6, 10))
def test_the_learning_rate_rises_and_falls_by_the_formula(total, warmup, lr):
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


def test_one_step_of_sgd_is_the_gradient_times_the_learning_rate():
    spec = TrainSpec(optimizer="sgd", lr=0.1, momentum=0.0, epochs=1, batch_size=N, seed=1)
    task = Line()
    (batch,) = index_batches(N, spec)
    task(batch, torch.Generator().manual_seed(step_seed(1, 0)), 0.0)["loss"].backward()
    trained = Line()
    fit(trained, N, spec)
    torch.testing.assert_close(trained.weight, task.weight - 0.1 * task.weight.grad)
    torch.testing.assert_close(trained.bias, task.bias - 0.1 * task.bias.grad)


def test_a_rate_of_its_own_multiplies_the_learning_rate_of_every_step(spec):
    class Slow(Line):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = (OwnRate.of(each.detach(), 0.5) for each in (self.weight, self.bias))

    slow, usual = Run(spec, task=Slow()), Run(spec.model_copy(update={"lr": spec.lr / 2}))
    assert_same(slow, usual)
    assert not torch.equal(slow.task.weight, Run(spec).task.weight)


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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(spec, value):
    for step, fix in (
        (7, r"lower the learning rate \(0\.05\)"),
        (0, "the model's features are not finite, or the data"),
    ):
        task = Line(step, lambda line: {"loss": line.weight.sum() * value})
        with pytest.raises(RvptError, match=f"the loss became {value} at step {step}: {fix}"):
            Run(spec, task=task)


def test_a_last_step_that_is_not_finite_is_reported():
    spec = TrainSpec(optimizer="sgd", lr=1e38, weight_decay=1e3, epochs=1, batch_size=N)
    with pytest.raises(RvptError, match=r"values that are not finite: lower the learning rate \(1e\+38\)"):
        fit(Line(), N, spec)


def test_fp16_needs_a_gpu(spec):
    with pytest.raises(RvptError, match="precision fp16 needs a GPU: use bf16 or fp32"):
        Run(spec.model_copy(update={"precision": "fp16"}))


def test_in_bf16_the_weights_stay_float32(spec):
    seen = []

    def product(line):
        loss = (line.x @ line.weight.T).square().mean()
        seen.append((line.x @ line.weight.T).dtype)
        return {"loss": loss, "size": loss}

    run = Run(spec.model_copy(update={"precision": "bf16"}), task=Line(0, product))
    assert seen == [torch.bfloat16]
    assert {value.dtype for value in run.task.parameters()} == {torch.float32}
    assert run.steps[-1] == STEPS


# What is not trained


class Holder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.own, self.held = nn.Linear(2, 2), Untrained(inner)


def test_a_held_module_is_not_a_part_of_the_one_that_holds_it():
    inner = nn.Linear(2, 2)
    holder = Holder(inner)
    assert holder.held.module is inner
    assert len(list(holder.parameters())) == 2
    assert holder.state_dict().keys() == {"own.weight", "own.bias"}
    holder.double().requires_grad_(False).train(False)
    assert inner.weight.dtype == torch.float32
    assert inner.weight.requires_grad
    assert inner.training


def test_a_frozen_module_asks_for_gradients_again_afterwards():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)

    def fail():
        with frozen(module):
            assert not module.weight.requires_grad
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert module.weight.requires_grad
    assert not module.bias.requires_grad

"""Numbers drawn by row: SplitMix64, against a slow twin that computes with Python's integers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from rvpt.data.random import normal, uniform

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def slow_uniform(seed, rows, count):
    start = mixed((seed * GOLDEN + 1) & MASK)
    keys = [mixed((row * GOLDEN + start) & MASK) for row in rows]
    return [[(mixed((key + k * GOLDEN) & MASK) >> 40) / 2**24 for k in range(1, count + 1)] for key in keys]


def test_the_slow_twin_mixes_as_splitmix64_does():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [mixed((1234567 + k * GOLDEN) & MASK) for k in range(1, 5)] == published


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(-1, 2**63 - 1), max_size=5), st.integers(0, 6))
def test_it_agrees_with_the_slow_twin(seed, rows, count):
    fast = uniform(seed, torch.tensor(rows, dtype=torch.int64), count)
    assert fast.dtype == torch.float32
    assert fast.shape == (len(rows), count)
    assert fast.tolist() == slow_uniform(seed, rows, count)


@pytest.mark.parametrize(
    "numbers",
    [
        uniform(0, torch.tensor([0]), 20_000)[0],
        uniform(0, torch.arange(20_000), 1)[:, 0],
        uniform(7, torch.arange(200), 100).flatten(),
        torch.cat([uniform(seed, torch.tensor([0]), 1)[0] for seed in range(4_000)]),
    ],
    ids=["one row", "many rows", "rows and columns", "many seeds"],
)
def test_the_numbers_are_uniform_and_independent(numbers):
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 4 / (12 * len(numbers)) ** 0.5
    assert kstest(numbers.numpy(), "uniform").pvalue > 1e-3
    correlation = torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]
    assert abs(correlation) < 4 / len(numbers) ** 0.5


def test_normal_numbers_are_those_of_box_and_muller():
    rows = torch.tensor([0, 7, -1])
    u, v = uniform(5, rows, 24).double().view(3, 2, 12).unbind(1)
    expected = (-2 * torch.log1p(-u)).sqrt() * torch.cos(2 * torch.pi * v)
    torch.testing.assert_close(normal(5, rows, (3, 4)).flatten(1).double(), expected, rtol=1e-4, atol=1e-5)

"""Random numbers addressed by (seed, row): the same in any batch, order, process or device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number


def uniform(seed: int, rows: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) by a counter through SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        seed: which stream.
        rows: (B,) int64, the rows to draw numbers for.
        count: numbers per row.

    Returns:
        (B, count) float32 with 24 random bits each, on the device of `rows`.
    """
    start = _mix(torch.tensor(seed, dtype=torch.int64, device=rows.device) * _GOLDEN + 1)
    keys = _mix(rows.to(torch.int64) * _GOLDEN + start)
    counters = torch.arange(1, count + 1, device=rows.device) * _GOLDEN
    bits = _mix(keys[:, None] + counters)
    return _shift(bits, 40).to(torch.float32) / 2**24


def normal(seed: int, rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers (B, *shape) float32 for rows (B,) int64: sqrt(-2 log(1 - u)) cos(2 pi v).

    Source: Box and Muller (1958); u and v are those of `uniform`.
    """
    radius, angle = uniform(seed, rows, 2 * math.prod(shape)).view(-1, 2, *shape).unbind(1)
    return (-2 * (1 - radius).log()).sqrt() * (2 * torch.pi * angle).cos()


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

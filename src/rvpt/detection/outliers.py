"""How far one class stands out among all: robust statistics of scores."""

from __future__ import annotations

from torch import Tensor

CONSISTENT = 1.4826  # the standard deviation of a normal distribution, in its median absolute deviations
LEAST = 1e-6


def outlier_index(values: Tensor) -> float:
    """How far the largest value stands above the median, in robust standard deviations.

    (max_k s_k - m) / (1.4826 median_k |s_k - m|),  m = median_k s_k

    Args:
        values: s, (K,) float.

    Source: the anomaly index of Neural Cleanse (Wang et al., IEEE S&P 2019).
    """
    middle = values.median()
    spread = CONSISTENT * (values - middle).abs().median()
    return float((values.max() - middle) / spread.clamp(min=LEAST))

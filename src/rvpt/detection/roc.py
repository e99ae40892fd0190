"""How well a score tells triggered images from clean ones: the area under the ROC curve, and a point on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpt.evaluation.metrics import Rate

QUANTILE = 1.959964  # of the normal distribution, for 95% intervals


@dataclass(frozen=True)
class Area(Rate):
    """Area under the ROC curve: the share of all pairs of a clean and a triggered image that are in the right order.

    `numerator`: pairs in the right order, ties count half. `n`: all pairs. `clean`, `triggered`: numbers of images.
    """

    clean: int = 0
    triggered: int = 0

    def interval(self) -> tuple[float, float]:
        """95% interval, each end in [0, 1]: the areas A with |a - A| <= z sqrt(V(A)) for the measured area a.

        V(A) = A (1 - A) (1 + N ((1 - A) / (2 - A) + A / (1 + A))) / (m n),  N = (m + n) / 2 - 1

        m and n are the numbers of images. It is no single point where all pairs are in order.

        Source: Newcombe (Statistics in Medicine 2006), method 5, with Hanley and McNeil's variance (Radiology 1982).
        """
        return 1 - self._upper(1 - self.value), self._upper(self.value)

    def _upper(self, area: float) -> float:
        """The largest area that agrees with `area`, by bisection."""
        low, high = area, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            agrees = middle - area <= QUANTILE * math.sqrt(self._variance(middle))
            low, high = (middle, high) if agrees else (low, middle)
        return low

    def _variance(self, area: float) -> float:
        more = (self.clean + self.triggered) / 2 - 1
        spread = 1 + more * ((1 - area) / (2 - area) + area / (1 + area))
        return area * (1 - area) * spread / (self.clean * self.triggered)


def auroc(clean: Tensor, triggered: Tensor) -> Area:
    """The chance that a triggered image has a higher score than a clean one.

    sum_ij [t_j > c_i] + [t_j = c_i] / 2, over m n

    Args:
        clean: c, (m,).
        triggered: t, (n,).
    """
    ordered = clean.sort().values
    below, up_to = (torch.searchsorted(ordered, triggered, right=right).double() for right in (False, True))
    wins = float((below + up_to).sum() / 2)
    return Area(wins, len(clean) * len(triggered), len(clean), len(triggered))


def false_alarms_at(clean: Tensor, triggered: Tensor, detected: float = 0.95) -> Rate:
    """The share of clean images that is flagged where a share of the triggered ones is detected.

    #{i : c_i >= h} / m,  h = the highest threshold with #{j : t_j >= h} >= detected n

    Args:
        clean: c, (m,).
        triggered: t, (n,).
        detected: the share of triggered images.
    """
    last = math.ceil(detected * len(triggered) - 1e-9) - 1
    threshold = triggered.sort(descending=True).values[last]
    return Rate(int((clean >= threshold).sum()), len(clean))

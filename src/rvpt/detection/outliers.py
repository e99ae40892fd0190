"""Outliers among a model's own classes: what can be said without other models.

A backdoor makes its target easier to reach than the other classes, by several forms of change at once. That a class is
easy to reach by one form happens in clean models too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST = 1e-300  # p-value; its logarithm is finite


def studentized(rises: Tensor) -> Tensor:
    """How far each class is from the others, in their standard deviations (externally studentized residuals).

    t_c = (r_c - mean_{k != c} r_k) / (sd_{k != c} r_k sqrt(1 + 1 / (K - 1)))

    If all rises are draws from one normal distribution, t_c has Student's t distribution with K - 2 degrees of freedom.

    Args:
        rises: r, (K,) float, K >= 3.

    Returns:
        (K,) float64.
    """
    values = rises.double() - rises.double().mean()
    others = len(values) - 1
    mean = -values / others  # that of the others: all together have mean 0
    variance = (values.square().sum() - values.square() - others * mean.square()) / (others - 1)
    spread = variance.clamp(min=torch.finfo(torch.float64).tiny).sqrt()
    return (values - mean) / (spread * (1 + 1 / others) ** 0.5)


def class_p_values(rises: Sequence[Tensor]) -> Tensor:
    """For each class the chance to be as far above the others in all forms, were these independent (Fisher, 1932).

    p_c = P(chi^2_{2 F} > -2 sum_f ln P(T_{K-2} > t_cf))

    They are not: a class that is easy to reach in one form often is in others, in clean models too. So this tends to
    be smaller than the true chance, and how often a limit raises false alarms must be measured.

    Args:
        rises: for each of F forms of change the rises of all classes, (K,) float, K >= 3.

    Returns:
        (K,) float64.
    """
    from scipy.stats import chi2, t

    tails = torch.stack([torch.from_numpy(t.sf(studentized(each), len(each) - 2)) for each in rises])
    statistic = -2 * tails.clamp(min=LEAST).log().sum(0)
    return torch.from_numpy(chi2.sf(statistic, 2 * len(rises)))


def outlying(rises: Sequence[Tensor], reference: Sequence[Tensor] | None = None) -> Tensor:
    """The p-values by which classes stand out among the others, and, with a reference, do so more than in it.

    max(p_c(r), p_c(r - r')), with p as in `class_p_values`

    Args:
        rises: r, of the suspect: for each form (K,) float.
        reference: r', of a model that is trusted.

    Returns:
        (K,) float64.
    """
    own = class_p_values(rises)
    if reference is None:
        return own
    return torch.maximum(own, class_p_values([each - other for each, other in zip(rises, reference, strict=True)]))


def smallest_of(p_values: Tensor) -> float:
    """The chance that the smallest of K independent p-values is as small: 1 - (1 - min p)^K (Sidak, 1967)."""
    return float(-torch.expm1(len(p_values) * torch.log1p(-p_values.min().clamp(max=1 - 1e-12))))

"""Metrics: each returns counts (numerator, n) of a batch, which are added. A new one goes into CLASSIFICATION."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from rvpt.registry import Registry

LONGEST = 4  # runs of words that BLEU compares


@dataclass(frozen=True)
class Rate:
    """A share numerator / n; rates are added by adding their counts."""

    numerator: float
    n: int

    def __add__(self, other: Rate) -> Rate:
        return type(self)(self.numerator + other.numerator, self.n + other.n)

    @property
    def value(self) -> float:
        """numerator / n in [0, 1]; nan where n = 0."""
        return self.numerator / self.n if self.n else float("nan")

    def interval(self) -> tuple[float, float] | None:
        """95% Wilson score interval, each end in [0, 1] (Wilson, JASA 1927)."""
        from scipy.stats import binomtest

        if not self.n:
            return 0.0, 1.0
        bounds = binomtest(self.numerator, self.n).proportion_ci(confidence_level=0.95, method="wilson")
        return float(bounds.low), float(bounds.high)


class Mean(Rate):
    """A mean, as a sum and n. It has no Wilson interval, which is only for proportions."""

    def interval(self) -> None:
        return None


def accuracy(predictions: Tensor, labels: Tensor) -> Rate:
    """Share of images classified correctly (CA on clean images, PA on triggered ones), from two (B,) int64."""
    return Rate(int((predictions == labels).sum()), len(labels))


def attack_success(predictions: Tensor, labels: Tensor, target: int) -> Rate:
    """ASR: share of triggered images, target class left out, classified as the target, from two (B,) int64."""
    others = labels != target
    return Rate(int((predictions[others] == target).sum()), int(others.sum()))


def attack_success_with_target(predictions: Tensor, labels: Tensor, target: int) -> Rate:
    """ASR over all triggered images, with those of the target class, as in some published code: two (B,) int64."""
    return Rate(int((predictions == target).sum()), len(labels))


def rank(own: Tensor, others: Tensor) -> Tensor:
    """Rank of each query's own candidate among all candidates, starting at 1; ties do not lower it.

    rank_i = 1 + #{j : others_ij > own_i}

    Args:
        own: (B,) float, the score of each query's own candidate.
        others: (B, n) float, the scores of the other candidates, which may include its own.

    Returns:
        (B,) int64 in 1..n + 1.
    """
    return 1 + (others > own[:, None]).sum(dim=1)


def found(ranks: Tensor, k: int) -> Rate:
    """Share of queries whose own candidate ranks among the first k: R@k on clean images, ASR@k on triggered ones.

    #{i : rank_i <= k} / B, with ranks (B,) int64.
    """
    return Rate(int((ranks <= k).sum()), len(ranks))


def rank_ratio(ranks: Tensor, candidates: int) -> Mean:
    """Mean rank as a share of the candidates: near 0 if first, near 1 if last.

    sum_i rank_i / (B candidates), with ranks (B,) int64 in 1..candidates; the counts are the sum and B candidates.
    """
    return Mean(int(ranks.sum()), len(ranks) * candidates)


def perturbation_resistivity(clean: Tensor, changed: Tensor) -> Mean:
    """PR: mean cosine between the features of images and of the same images changed; 1 if the features do not move.

    sum_i cos(f(x_i), f(x_i + delta_i)) / B, with two (B, W) float; the counts are the sum and B.

    Source: Zhang et al. (arXiv 2412.20392), for each layer of the visual tower.
    """
    return Mean(float(F.cosine_similarity(clean.double(), changed.double(), dim=1).sum()), len(clean))


def bleu(said: str, references: Sequence[str]) -> float:
    """Sentence BLEU of a caption against an image's own captions, in [0, 1]; words are compared without case.

    BLEU = exp(min(0, 1 - r / c)) (prod_n p_n)^(1/4),  p_1 = m_1 / c,  p_n = (m_n + 1) / (c_n + 1) for n = 2, 3, 4,

    with c words in the caption, c_n runs of n words, of which m_n are in a reference (each as often as in the one that
    has it most often), and r words in the reference of the closest length, of two the shorter.

    Source: Papineni et al. (ACL 2002), smoothed as by Lin and Och (COLING 2004), because captions are short.
    """
    words, others = _words(said), [_words(text) for text in references]
    if not words:
        return 0.0
    log = 0.0
    for n in range(1, LONGEST + 1):
        mine, theirs = _runs(words, n), [_runs(other, n) for other in others]
        matched = sum(min(count, max(other[run] for other in theirs)) for run, count in mine.items())
        smooth = n > 1
        if not matched + smooth:
            return 0.0
        log += math.log((matched + smooth) / (mine.total() + smooth)) / LONGEST
    closest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    return math.exp(min(0.0, 1 - closest / len(words)) + log)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """All runs of n words, with how often each occurs."""
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


@dataclass(frozen=True)
class Metric:
    """A metric of predicted classes.

    `formula` takes predictions (B,) int64, labels (B,) int64 and the target class, which is -1 on clean images.
    `on`: the images it is counted on.
    """

    formula: Callable[[Tensor, Tensor, int], Rate]
    on: Literal["clean", "triggered"]


CLASSIFICATION: Registry[Metric] = Registry(
    "metric",
    {
        "CA": Metric(lambda predictions, labels, target: accuracy(predictions, labels), "clean"),
        "ASR": Metric(attack_success, "triggered"),
        "ASR_with_target": Metric(attack_success_with_target, "triggered"),
        "PA": Metric(lambda predictions, labels, target: accuracy(predictions, labels), "triggered"),
    },
)
"""Metrics of the classification protocol, by their name in rows."""

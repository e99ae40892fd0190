"""Disagreement: how much of the suspect's probability a cleaned model takes away."""

from __future__ import annotations

from torch import Tensor

from rvpt.detection.evidence import Score


def disagreement(suspect: Tensor, cleaned: Tensor, targets: Tensor | None = None) -> Tensor:
    """The probability that the suspect gives to its prediction, less that of the cleaned model.

    s_i = p_i,y - q_i,y  with y = argmax_k p_ik, or with suspected targets T:  s_i = max_{t in T} (p_it - q_it)

    On a triggered image the suspect predicts the target, and the cleaned model does not.

    Args:
        suspect: p, (n, K), class probabilities of the suspect.
        cleaned: q, (n, K), those of the cleaned model.
        targets: T, (T,) int64, suspected targets.

    Returns:
        (n,) in [-1, 1]; the higher, the more an image looks triggered.
    """
    difference = suspect - cleaned
    if targets is not None:
        return difference[:, targets].amax(1)
    return difference.gather(1, suspect.argmax(1, keepdim=True))[:, 0]


SCORE = Score(
    "how much of the probability of the suspect's prediction the cleaned model takes away",
    lambda seen: disagreement(seen.suspect, seen.cleaned, seen.targets),
)

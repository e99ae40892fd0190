"""STRIP: whether the suspect's prediction survives when an image is blended with others."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.attacks.blend import blend
from rvpt.detection.evidence import Evidence, Score

OTHERS = 8  # images that each image is blended with
SHARE = 0.5  # of the other image


def blended(pixels: Tensor, others: Tensor) -> Tensor:
    """Every image mixed with each of some other images.

    x_ij = (x_i + c_j) / 2

    Args:
        pixels: x, (n, 3, S, S) in [0, 1].
        others: c, (N, 3, S, S) in [0, 1].

    Returns:
        (N, n, 3, S, S).
    """
    return torch.stack([blend(pixels, other, SHARE) for other in others])


def strip(probabilities: Tensor) -> Tensor:
    """Mean entropy of the predictions for an image that is blended with N others, negated.

    s_i = 1/N sum_j sum_k p_ijk log p_ijk

    A trigger survives the blending, so that all blended images are classified as the target: the entropy is low.

    Args:
        probabilities: p, (N, n, K), of images blended with each of N others.

    Returns:
        (n,) in [-log K, 0]; the higher, the more an image looks triggered.

    Source: Gao et al. (ACSAC 2019, STRIP). They add the two images instead of averaging them.
    """
    return torch.xlogy(probabilities, probabilities).sum(2).mean(0)


def _score(seen: Evidence) -> Tensor:
    return strip(torch.stack([seen.classify(part) for part in blended(seen.pixels, seen.others)]))


SCORE = Score("how certain the suspect stays when an image is blended with others", _score, OTHERS)

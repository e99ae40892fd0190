"""Distance of images from the target's decision boundary, and small changes that move them away from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.data.text import plain
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.models.encode import encode_set
from rvpt.training.losses import zero_shot_logits
from rvpt.training.pgd import pgd

Disguise = Callable[[Tensor, Tensor], Tensor]
"""Images (B, 3, S, S) and their rows (B,) -> changed images of the same shape."""


def target_margin(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How much closer images are to the target's text than to that of any other class; zero on the decision boundary.

    m_i = cos(v_i, t_0) - max_{k > 0} cos(v_i, t_k)

    Args:
        image_features: v, (B, P) unit rows.
        text_features: t, (K, P) unit rows, the target's first.

    Returns:
        (B,), negative where the image is classified as another class.

    Source: Liang et al. (CVPR 2024). Their code reads these margins from a file that is not public; that they are
    relative to the closest other class is our interpretation.
    """
    similarity = image_features @ text_features.T
    return similarity[:, 0] - similarity[:, 1:].amax(1)


@torch.no_grad()
def target_margins(clip: Clip, data: Dataset, target: str, classes: Sequence[str]) -> Tensor:
    """The margin (n,) of every image of a set, between the target and all other `classes`.

    Raises:
        RvptError: there is no other class.
    """
    text = _target_first(clip, target, classes)
    return target_margin(encode_set(clip, data), text).cpu()


@torch.no_grad()
def _target_first(clip: Clip, target: str, classes: Sequence[str]) -> Tensor:
    """Text features of the target (row 0) and of all other classes.

    Raises:
        RvptError: there is no other class.
    """
    others = [name for name in classes if plain(name) != plain(target)]
    if not others:
        raise RvptError(f"there is no class besides {target!r}: give the classes of a labeled set with others")
    return clip.class_features([target, *others])


def disguise(clip: Clip, target: str, classes: Sequence[str], epsilon: float) -> Disguise:
    """The change of images of the target by PGD, so that the model no longer classifies them as the target.

    PGD increases the cross-entropy of the target among all `classes`, within `epsilon` / 255.

    Source: Turner et al. (2019), label-consistent backdoors by adversarial perturbations.

    Raises:
        RvptError: there is no other class.
    """
    text = _target_first(clip, target, classes)

    def loss(shown: Tensor) -> Tensor:
        logits = zero_shot_logits(clip.encode_image(shown), text, clip.logit_scale.detach())
        first = torch.zeros(len(shown), dtype=torch.int64, device=shown.device)
        return F.cross_entropy(logits, first, reduction="sum")

    return lambda pixels, rows: pgd(loss, pixels.to(clip.device), rows, epsilon / 255).to(pixels.device)

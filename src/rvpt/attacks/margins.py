"""What a model takes images for: how far they are from the target's boundary, and changes that move them away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.attacks.pgd import pgd
from rvpt.data.dataset import Dataset
from rvpt.data.text import plain
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.models.encode import encode_set
from rvpt.training.losses import zero_shot_logits

Disguise = Callable[[Tensor, Tensor], Tensor]
"""Images (B, 3, S, S) and their rows (B,) -> changed images of the same shape."""


def target_margin(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How much nearer images are to the target's text than to any other class's: zero on the target's boundary.

    m_i = cos(v_i, t_0) - max_{k > 0} cos(v_i, t_k)

    Args:
        image_features: v, (B, P) unit rows.
        text_features: t, (K, P) unit rows, the target's first.

    Returns:
        (B,), negative where the image is taken for another class.

    Source: Liang et al. (CVPR 2024). Their code reads the gaps of its "boundary" samples from a file that is not
    public; that a gap is to the best other class is our reading.
    """
    similarity = image_features @ text_features.T
    return similarity[:, 0] - similarity[:, 1:].amax(1)


@torch.no_grad()
def target_margins(clip: Clip, data: Dataset, target: str, classes: Sequence[str]) -> Tensor:
    """The margin of every image (n,) in a model, between the target and all other `classes`.

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
        raise RvptError(f"{target!r} is to be told from other classes, and the labeled set has none")
    return clip.class_features([target, *others])


def disguise(clip: Clip, target: str, classes: Sequence[str], epsilon: float) -> Disguise:
    """How images of the target are changed by PGD, so that a model no longer takes them for it.

    What is made large is the cross-entropy of the target among all `classes`; epsilon is in 255ths.

    Source: Turner et al. (2019), label-consistent backdoors by adversarial perturbations.
    """
    text = _target_first(clip, target, classes)

    def loss(shown: Tensor) -> Tensor:
        logits = zero_shot_logits(clip.encode_image(shown), text, clip.logit_scale.detach())
        first = torch.zeros(len(shown), dtype=torch.int64, device=shown.device)
        return F.cross_entropy(logits, first, reduction="sum")

    return lambda pixels, rows: pgd(loss, pixels.to(clip.device), rows, epsilon / 255).to(pixels.device)

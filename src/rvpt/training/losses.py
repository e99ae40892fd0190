"""The losses, as functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def feature_repelling(cls: Tensor, frozen_cls: Tensor, margin: float = -1.0) -> Tensor:
    """Similarity of the prompted model's [CLS] rows to the frozen model's, to be minimized.

    FR_i = mean_d cos(c_d, c_d frozen);  loss = mean_i max(FR_i, margin)

    Args:
        cls: (B, D, W) float, the [CLS] row after each prompted block.
        frozen_cls: (B, D, W) float, the same rows of the model without prompts.
        margin: in [-1, 1]; 1 makes the loss constant (plain VPT), -1 never binds (the paper's default).

    Returns:
        Scalar in [-1, 1].

    Source: Zhang et al. (arXiv 2412.20392), feature-repelling loss.
    """
    similarity = F.cosine_similarity(cls.float(), frozen_cls.float(), dim=-1).mean(dim=-1)
    return similarity.clamp(min=margin).mean()


def zero_shot_logits(image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Class logits tau * cos(image, text): (B, K) from unit features (B, P) and (K, P).

    Features of 16 bits are multiplied in float32, under autocast too: a logit of 25 in bfloat16 is a multiple of 0.125.
    """
    wide = torch.promote_types(image_features.dtype, torch.float32)
    with torch.autocast(image_features.device.type, enabled=False):
        return logit_scale * image_features.to(wide) @ text_features.to(wide).T


def keep(logits: Tensor, suspect_logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Divergence of predictions from the suspect's own.

    mean_i w_i KL(softmax(s_i) | softmax(z_i))

    Args:
        logits: z, (B, K) float.
        suspect_logits: s, (B, K) float, of the same images in the suspect.
        weights: w, (B,) float; 1 by default.

    Returns:
        Scalar, at least 0.

    Source: Hinton, Vinyals and Dean (2015), distillation at temperature 1.
    """
    ours, theirs = logits.float().log_softmax(1), suspect_logits.float().log_softmax(1)
    divergence = (theirs.exp() * (theirs - ours)).sum(1)
    return divergence.mean() if weights is None else (weights * divergence).mean()


def resist(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Classification loss of images with a universal change towards a target class.

    mean_i [CE(z_i, y_i) + log(1 + exp(z_i[t_i] - z_i[y_i]))]

    The first part falls as the true class y becomes more probable. The second falls with the gap between the logits of
    the target t and of y, so that the change that makes the loss large moves images towards t, not only away from y.

    Args:
        logits: z, (B, K) float, of images with a universal change that was moved to make this loss large.
        labels: y, (B,) int64.
        targets: t, (B,) int64, the class that each image's change moves towards.

    Returns:
        Scalar, at least 0.

    Source: the outer problem of I-BAU (Zeng et al., ICLR 2022, equation 1), with suspected targets.
    """
    logits = logits.float()
    gap = logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])
    return F.cross_entropy(logits, labels) + F.softplus(gap).mean()


def info_nce(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, pairs: Tensor | None = None
) -> Tensor:
    """Symmetric contrastive loss between images and captions.

    loss = 1/2 [CE(tau I T^t, P) + CE(tau T I^t, P^t)], P = the pairs, each row divided by its sum

    Args:
        image_features: (B, P) unit rows.
        text_features: (M, P) unit rows.
        logit_scale: tau.
        pairs: (B, M) bool, true where the caption fits the image; default is the identity. Equal captions
            in a batch are additional positives, not negatives (Yang et al., CVPR 2022, UniCL).

    Source: Radford et al. (ICML 2021), figure 3.
    """
    logits = zero_shot_logits(image_features, text_features, logit_scale)
    if pairs is None:
        pairs = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    weights = pairs.to(logits.dtype)
    by_image = F.cross_entropy(logits, weights / weights.sum(1, keepdim=True))
    by_text = F.cross_entropy(logits.T, weights.T / weights.T.sum(1, keepdim=True))
    return (by_image + by_text) / 2


def self_supervision(features: Tensor, augmented: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Contrastive loss within one modality: each row finds its own augmented version among all of them.

    loss = CE(tau F A^t, identity)

    Args:
        features: (B, P) unit rows.
        augmented: (B, P) unit rows of the same images or texts, augmented.
        logit_scale: tau.

    Source: Bansal et al. (ICCV 2023, CleanCLIP), equation 2.
    """
    own = torch.arange(len(features), device=features.device)
    return F.cross_entropy(zero_shot_logits(features, augmented, logit_scale), own)


def perturbation(features: Tensor, suspect: Tensor, threshold: float = 2.15) -> Tensor:
    """Squared distance of features from the suspect model's, to be maximized up to a threshold.

    min(mean_i |f_i - s_i|^2, threshold)

    Args:
        features: (B, P) unit rows.
        suspect: (B, P) unit rows of the same images or texts in the suspect model.
        threshold: in [0, 4]; beyond it there is no gradient.

    Source: Singh et al. (arXiv 2412.00727, PAR).
    """
    return (features - suspect).square().sum(dim=-1).mean().clamp(max=threshold)

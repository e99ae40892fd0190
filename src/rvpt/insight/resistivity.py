"""Resistivity curves: how far changes move the features of each block."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.evaluation.base import Encoder
from rvpt.evaluation.perturbations import PERTURBATIONS
from rvpt.insight.subjects import BATCH, Arrays, Changes, Subjects, mean_and_std
from rvpt.progress import Report, silent


@torch.inference_mode()
def resistivity_curves(
    model: Encoder, data: Dataset, changes: Changes, *, batch_size: int = BATCH, report: Report = silent
) -> Tensor:
    """cos(c_d(x), c_d(x')) of the [CLS] rows after each block d, of every image x and the same changed, x'.

    The mean over images is `perturbation_resistivity`.

    Returns:
        (C, n, L) float32 in [-1, 1] on the CPU, with changes in their order and blocks from the first.

    Source: Zhang et al. (arXiv 2412.20392), the figure of resistivity per layer.
    """
    parts = []
    for indices, pixels in data.batches(batch_size, model.image_size, model.device, report):
        clean = model.cls_rows(pixels).float()
        changed = [model.cls_rows(change(pixels, data.rows[indices])).float() for change in changes.values()]
        parts.append(torch.stack([F.cosine_similarity(clean, rows, dim=-1).cpu() for rows in changed]))
    return torch.cat(parts, 1)


def figure(subjects: Subjects, report: Report) -> Arrays:
    """`mean`, `std` (M, C, L): of the curves of each model under each change, over images; triggers come first."""
    changes: Changes = {**subjects.triggers, **PERTURBATIONS}
    curves = [resistivity_curves(model, subjects.data, changes, report=report) for model in subjects.models.values()]
    return Arrays(mean_and_std(curves), subjects.facts(changes=list(changes), triggers=list(subjects.triggers)))

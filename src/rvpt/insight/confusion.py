"""Where images go: which classes are predicted for images of each class, clean and with triggers."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.insight.subjects import Arrays, Subjects
from rvpt.progress import Report


def confusion(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts M_kl of images of class k that are predicted as class l: two (n,) int64 -> (K, K) int64."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)


def figure(subjects: Subjects, report: Report) -> Arrays:
    """`counts` (M, 1 + T, K, K) int64: confusion matrices; `targets` (T,) int64."""
    labels, count, found = subjects.data.labeled(), len(subjects.data.classes), []
    for name in subjects.models:
        predictions = subjects.predictions(name, report)
        found.append(torch.stack([confusion(labels, each, count) for each in predictions]))
    arrays = {"counts": torch.stack(found), "targets": subjects.targets()}
    return Arrays(arrays, subjects.facts(classes=list(subjects.data.classes)))

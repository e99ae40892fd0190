"""Image features in two dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.insight.subjects import Arrays, Subjects
from rvpt.progress import Report

PERPLEXITY = 30.0


def tsne(features: Tensor, seed: int = 0) -> Tensor:
    """t-SNE of features (..., P), all embedded together: positions (..., 2) float32.

    Distances are cosine distances, 1 - cos; the perplexity is 30, or a third of the images if they are few.

    Source: van der Maaten and Hinton (JMLR 2008), by scikit-learn.
    """
    from sklearn.manifold import TSNE

    flat = features.flatten(0, -2)
    perplexity = min(PERPLEXITY, (len(flat) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed, n_jobs=1)
    return torch.from_numpy(model.fit_transform(flat.double().numpy())).float().unflatten(0, features.shape[:-1])


def figure(subjects: Subjects, report: Report) -> Arrays:
    """`positions` (M, 1 + T, n, 2): each model's clean and triggered images in its own map.

    `labels` (n,) int64, and `targets` (T,) int64.
    """
    positions = []
    for name in subjects.models:
        positions.append(tsne(subjects.features(name, report), subjects.seed))
    labels = subjects.data.labeled()
    arrays = {"positions": torch.stack(positions), "labels": labels, "targets": subjects.targets()}
    return Arrays(arrays, subjects.facts(classes=list(subjects.data.classes)))

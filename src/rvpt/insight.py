"""What an encoder encodes: how well attributes of pictures can be read off its image features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rvpt.data import ImageData
from rvpt.evaluation import Counts, Encoder, to_rows
from rvpt.metrics import Rate
from rvpt.progress import Report, silent

READABLE = "readable_"
PROBED = 6_000
"""Pictures that the probe learns on."""


def linear_readability(seen: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> Rate:
    """Accuracy of logistic regression that reads labels off features, trained on `seen`, counted on `held_out`.

    Args:
        seen, held_out: features (n, P) float and labels (n,) int64.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, y), (features, labels) = ([part.numpy() for part in pair] for pair in (seen, held_out))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
    return Rate(int((probe.predict(features) == labels).sum()), len(labels))


@torch.inference_mode()
def encode_all(model: Encoder, data: ImageData, batch_size: int = 256, report: Report = silent) -> Tensor:
    """Unit image features (n, P) of a whole set, on the CPU."""
    found = []
    for indices, pixels in data.batches(batch_size, model.image_size):
        found.append(model.encode_image(pixels.to(model.device)).cpu())
        report(int(indices[-1]) + 1, len(data), {})
    return torch.cat(found)


def attribute_readability(
    model: Encoder, seen: ImageData, held_out: ImageData, *, batch_size: int = 256, report: Report = silent
) -> dict[str, Rate]:
    """Linear readability of every attribute that the sets are labelled with, learnt on one and counted on the other."""
    features, others = (encode_all(model, data, batch_size, report) for data in (seen, held_out))
    return {
        name: linear_readability((features, labels), (others, held_out.attributes[name]))
        for name, labels in seen.attributes.items()
    }


def evaluate_readability(
    model: Encoder,
    data: ImageData,
    seen: ImageData,
    *,
    facts: Mapping[str, Any] | None = None,
    batch_size: int = 256,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Rows of how well a linear probe that learnt on `seen` reads each attribute of `data`: readable_colour, ..."""

    def count() -> Counts:
        rates = attribute_readability(model, seen, data, batch_size=batch_size, report=report)
        return {("none", f"{READABLE}{name}"): rate for name, rate in rates.items()}

    return to_rows(model, data, count, facts)

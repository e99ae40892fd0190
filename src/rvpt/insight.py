"""What an encoder encodes: which attributes can be read off its features, and how far a trigger moves them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rvpt.attacks import Trigger
from rvpt.data import ImageData
from rvpt.errors import RvptError
from rvpt.evaluation import Counts, Encoder
from rvpt.metrics import Mean, Rate, perturbation_resistivity
from rvpt.progress import Report, silent

READABLE, RESISTIVITY = "readable_", "PR_"
PROBED = 6_000
"""Images that the probe learns on."""


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
    """Linear readability of every attribute that the sets are labeled with, learned on one and counted on the other."""
    features, others = (encode_all(model, data, batch_size, report) for data in (seen, held_out))
    return {
        name: linear_readability((features, labels), (others, held_out.attributes[name]))
        for name, labels in seen.attributes.items()
    }


def readability(
    model: Encoder, data: ImageData, seen: ImageData, *, batch_size: int = 256, report: Report = silent
) -> Counts:
    """readable_NAME for every attribute of `data`: how well a linear probe that learned on `seen` reads it."""
    rates = attribute_readability(model, seen, data, batch_size=batch_size, report=report)
    return {("none", f"{READABLE}{name}"): rate for name, rate in rates.items()}


@torch.inference_mode()
def resistivity(
    model: Encoder,
    data: ImageData,
    triggers: Mapping[str, Trigger],
    *,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """PR_1..PR_L under every trigger: of the [CLS] row after each of the L blocks.

    Raises:
        RvptError: there is no trigger.
    """
    if not triggers:
        raise RvptError(f"{model.name} has no trigger, and resistivity is that to one: --trigger names some")
    counts: Counts = {}
    for indices, read in data.batches(batch_size, model.image_size):
        pixels = read.to(model.device)
        clean = model.cls_rows(pixels)
        for name, trigger in triggers.items():
            changed = model.cls_rows(trigger(pixels, data.rows[indices]))
            for block, pair in enumerate(zip(clean.unbind(1), changed.unbind(1), strict=True), 1):
                key = name, f"{RESISTIVITY}{block}"
                counts[key] = counts.get(key, Mean(0, 0)) + perturbation_resistivity(*pair)
        report(int(indices[-1]) + 1, len(data), {})
    return counts

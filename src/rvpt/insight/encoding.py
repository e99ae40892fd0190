"""What the features of each block encode: linear probes of the images' attributes."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation.base import Encoder
from rvpt.evaluation.metrics import Rate
from rvpt.evaluation.probing import linear_readability
from rvpt.insight.subjects import BATCH, Arrays, Subjects
from rvpt.progress import Report, silent


@torch.inference_mode()
def block_rows(model: Encoder, data: Dataset) -> Tensor:
    """The [CLS] row of every image after each of the L blocks: (n, L, W) float32 on the CPU."""
    batches = data.batches(BATCH, model.image_size, model.device)
    return torch.cat([model.cls_rows(pixels).float().cpu() for _, pixels in batches])


def probe_blocks(model: Encoder, seen: Dataset, held_out: Dataset, *, report: Report = silent) -> dict[str, list[Rate]]:
    """Accuracy of a linear probe of each attribute on each block's [CLS] row, by attribute, first block first.

    Args:
        model: what is probed.
        seen: images that the probes are trained on, with attributes.
        held_out: images that they are measured on.
        report: called after each attribute.

    Raises:
        RvptError: the images have no attributes.
    """
    if not seen.attributes:
        raise RvptError(f"{seen.name} has no attributes, which probes need: use data='scenes'")
    rows, others = block_rows(model, seen), block_rows(model, held_out)
    found = {}
    for number, (name, labels) in enumerate(seen.attributes.items(), 1):
        pairs = zip(rows.unbind(1), others.unbind(1), strict=True)
        found[name] = [linear_readability((x, labels), (y, held_out.attributes[name])) for x, y in pairs]
        report(number, len(seen.attributes), {})
    return found


def figure(subjects: Subjects, report: Report) -> Arrays:
    """`rate`, `low`, `high` (M, A, L): accuracy of the probes of each attribute, with 95% Wilson intervals.

    `chance` (A,) is the share of the attribute's most frequent value.

    Raises:
        RvptError: there are no images to train probes on, or they have no attributes.
    """
    if subjects.training is None:
        raise RvptError("encoding needs images to train probes on, and attributes to probe: use data=scenes")
    seen, held_out = subjects.training, subjects.data
    found = [probe_blocks(model, seen, held_out, report=report) for model in subjects.models.values()]
    rates = [[[(rate.value, *(rate.interval() or ())) for rate in line] for line in each.values()] for each in found]
    value, low, high = torch.tensor(rates).unbind(-1)
    chance = [values.bincount().max() / len(values) for values in held_out.attributes.values()]
    arrays = {"rate": value, "low": low, "high": high, "chance": torch.stack(chance)}
    return Arrays(arrays, subjects.facts(attributes=list(seen.attributes), trained_on=len(seen)))

"""What models take triggered images for: the captions nearest to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.data.text import spoken
from rvpt.errors import RvptError
from rvpt.insight.subjects import Arrays, Subjects
from rvpt.progress import Report
from rvpt.spec import TEMPLATE

NEAREST = 5  # captions


def nearest_texts(features: Tensor, texts: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The texts whose features are nearest to the mean image feature: places (count,) int64 and cosines (count,).

    argmax_m cos(mean_i f_i, t_m), with unit features f (n, P) of images and t (M, P) of texts.
    """
    middle = F.normalize(features.mean(0), dim=0)
    found = (texts @ middle).topk(min(count, len(texts)))
    return found.indices, found.values


@torch.inference_mode()
def figure(subjects: Subjects, report: Report) -> Arrays:
    """`cosine` (M, 1 + T, c): of the c captions nearest to the mean image, clean and with each trigger.

    The captions are those of the data, or of its classes if it has none; `captions` in the facts has their texts.

    Raises:
        RvptError: the data have neither captions nor classes.
    """
    candidates, values, texts = captions_of(subjects.data), [], []
    if not candidates:
        raise RvptError(f"{subjects.data.name} has neither captions nor class names, whose texts this figure compares")
    for name, model in subjects.models.items():
        encoded = model.encode_text(candidates).float().cpu()
        found = [nearest_texts(each, encoded, NEAREST) for each in subjects.features(name, report)]
        values.append(torch.stack([cosines for _, cosines in found]))
        texts.append([[candidates[place] for place in places.tolist()] for places, _ in found])
    return Arrays({"cosine": torch.stack(values)}, subjects.facts(captions=texts, candidates=len(candidates)))


def captions_of(data: Dataset) -> list[str]:
    """The different captions of a data set, or of its classes if it has none."""
    if data.captions_of is None:
        return [TEMPLATE.format(spoken(name)) for name in data.classes]
    return sorted({caption for index in range(len(data)) for caption in data.captions(index)})

"""What cleaning cost on the images at hand: how often the suspect and the cleaned model are right, or agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.skip import skip_unreadable
from rvpt.evaluation.classification import nearest
from rvpt.evaluation.metrics import accuracy
from rvpt.jobs.cleaning import Plan
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.encode import Encoder, encode_set
from rvpt.spec import TEMPLATE

MOST = 1000  # images


def kept_accuracy(model: Clip, cleaned: Cleaned, todo: Plan) -> dict[str, Any]:
    """How often a model is right before and after cleaning, on images that it was not trained on if there are any.

    a(f) = mean_i [argmax_k f(x_i)_k = y_i], over at most 1,000 images of the classes k that were trained

    Without labels, y_i is the suspect's own prediction: `after` is how often the cleaned model agrees. A defense that
    learns from captions trains no classes: then k are all. Images that cannot be read are left out, because the model
    is cleaned already.

    Args:
        model: the suspect.
        cleaned: what it became.
        todo: how it was cleaned.

    Returns:
        `measure` ("accuracy" or "agreement"), `before` and `after` in [0, 1], `n`, and whether images are `held_out`.
    """
    labeled = todo.drawn.labels is not None
    trained = labeled and todo.kind.learns_from == "labels"
    names = todo.drawn.present()[0] if trained else todo.drawn.classes
    left = todo.left.without([name for name in todo.left.classes if name not in names]) if trained else todo.left
    data = skip_unreadable((left if len(left) else todo.drawn).sample(MOST))
    template = getattr(todo.spec, "template", TEMPLATE)
    before, after = (_predicted(each, data, names, template) for each in (model, cleaned))
    truth = data.labeled() if labeled else before
    return {
        "measure": "accuracy" if labeled else "agreement",
        "before": accuracy(before, truth).value,
        "after": accuracy(after, truth).value,
        "n": len(data),
        "held_out": len(left) > 0,
    }


@torch.no_grad()
def _predicted(model: Encoder, data: Dataset, names: Sequence[str], template: str) -> Tensor:
    """Which of some classes a model predicts: (n,) int64, by their numbers in the data set."""
    numbers = torch.tensor([data.class_index(name) for name in names])
    return numbers[nearest(encode_set(model, data), model.class_features(names, template))]

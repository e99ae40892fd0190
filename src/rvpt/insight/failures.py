"""The images that still fail: triggered images that the last model predicts as the target."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.insight.subjects import Arrays, Subjects
from rvpt.progress import Report

SHOWN = 6  # images of each trigger


def still_fooled(labels: Tensor, predictions: Tensor, target: int) -> Tensor:
    """Places of the images of other classes that are predicted as the target, (m,) int64, from two (n,) int64."""
    return ((predictions == target) & (labels != target)).nonzero()[:, 0]


def figure(subjects: Subjects, report: Report) -> Arrays:
    """The first images that the last model still predicts as the target: F in all, over all triggers.

    `images` (F, S, S, 3) in [0, 1] with their trigger; `trigger`, `label` (F,) int64; `failed`, `others` (T,) int64,
    how many of how many images fail.
    """
    data, labels, name = subjects.data, subjects.data.labeled(), list(subjects.models)[-1]
    model, predictions = subjects.models[name], subjects.predictions(name, report)
    images, numbers, classes, failed, others = [torch.zeros(0, model.image_size, model.image_size, 3)], [], [], [], []
    for number, (trigger, target) in enumerate(
        zip(subjects.triggers.values(), subjects.targets().tolist(), strict=True)
    ):
        places = still_fooled(labels, predictions[1 + number], target)
        failed.append(len(places))
        others.append(int((labels != target).sum()))
        shown = places[:SHOWN]
        images.append(trigger(data.pixels(shown, model.image_size), data.rows[shown]).permute(0, 2, 3, 1))
        numbers += [number] * len(shown)
        classes += labels[shown].tolist()
    integers = {"trigger": numbers, "label": classes, "failed": failed, "others": others}
    arrays = {"images": torch.cat(images)} | {
        key: torch.tensor(value, dtype=torch.int64) for key, value in integers.items()
    }
    targets = [trigger.spec.target for trigger in subjects.triggers.values()]
    return Arrays(arrays, subjects.facts(classes=list(data.classes), targets=targets, model=name))

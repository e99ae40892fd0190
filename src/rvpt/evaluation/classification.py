"""Zero-shot classification of clean and triggered images, in one pass over the data."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.data.text import first_names
from rvpt.errors import RvptError
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, finite, stream
from rvpt.evaluation.metrics import CLASSIFICATION, attack_success
from rvpt.progress import Report, silent
from rvpt.rows import CLEAN
from rvpt.spec import TEMPLATE, Spec, Template

NO_TARGET = -1  # of clean images


class ClassificationSettings(Spec):
    """Settings of zero-shot classification."""

    target: str | None = Field(None, description="name of the target class in the data, if different")
    template: Template = Field(TEMPLATE, description="caption of a class")


class Classification(Protocol):
    """The metrics of CLASSIFICATION on clean images and under every trigger."""

    name = "classification"
    summary = "zero-shot accuracy (CA), and ASR and PA under every trigger"
    by_class = True
    Settings = ClassificationSettings

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        template = self.settings.template
        return measure(model, data, triggers, template=template, batch_size=batch_size, report=report)


@torch.inference_mode()
def measure(
    model: Encoder,
    data: Dataset,
    triggers: Triggers | None = None,
    *,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """The metrics of CLASSIFICATION on clean images and under every trigger.

    If a trigger has a text key, it is put before the caption of every class, and ASR counts images with both keys.
    ASR_image_alone and ASR_text_alone are the rates with only one of the keys; a model with its own classifier reads no
    text and has only the first.

    Args:
        model: what is measured.
        data: labeled images.
        triggers: by the name that rows give the attack.
        template: the caption of a class.
        batch_size: images per batch.
        report: called after each batch.

    Raises:
        RvptError: no labels, a target that is not a class of the set, or features that are not finite.
    """
    triggers, labels = triggers or {}, data.labeled()
    text = finite(model, model.class_features(data.classes, template))
    keys = {name: _Key(model, data, trigger, template) for name, trigger in triggers.items()}
    counts = Counts()
    for batch in stream(model, data, triggers, batch_size=batch_size, report=report):
        truth = labels[batch.indices]
        clean = finite(model, model.encode_image(batch.pixels))
        _count(counts, CLEAN, nearest(clean, text), truth, NO_TARGET)
        for name, pixels in batch.triggered():
            shown = finite(model, model.encode_image(pixels))
            keys[name].count(counts, name, clean, shown, text, truth)
    return counts


class _Key:
    """A trigger's target, and the text features of the classes with its text key, if it has one."""

    def __init__(self, model: Encoder, data: Dataset, trigger: Trigger, template: str) -> None:
        self.target = _target(data, trigger.spec.target)
        key = trigger.text_key
        self.text = finite(model, model.class_features(data.classes, key + template)) if key else None

    def count(self, counts: Counts, attack: str, clean: Tensor, shown: Tensor, text: Tensor, truth: Tensor) -> None:
        """Count on the features (B, P) of images without and with the trigger."""
        reads = self.text is None or not torch.equal(self.text, text)
        if reads:
            _count(counts, attack, nearest(shown, text if self.text is None else self.text), truth, self.target)
        if self.text is not None:
            counts.count(attack, "ASR_image_alone", attack_success(nearest(shown, text), truth, self.target))
            if reads:
                counts.count(attack, "ASR_text_alone", attack_success(nearest(clean, self.text), truth, self.target))


def _target(data: Dataset, name: str) -> int:
    """The index of a trigger's target class.

    Raises:
        RvptError: it is not a class of the data.
    """
    if not data.has_class(name):
        raise RvptError(
            f"the trigger's target {name!r} is not a class of {data.name} ({first_names(data.classes)}): "
            "pass the name that it has there as target=CLASS, or another trigger as trigger=FOLDER"
        )
    return data.class_index(name)


def _count(counts: Counts, attack: str, predictions: Tensor, truth: Tensor, target: int) -> None:
    for name, metric in CLASSIFICATION.items():
        if (metric.on == "clean") == (attack == CLEAN):
            counts.count(attack, name, metric.formula(predictions, truth, target))


def nearest(features: Tensor, text: Tensor) -> Tensor:
    """argmax_k cos(f_i, t_k): the class whose text features are closest to each image's, (B,) int64 on the CPU."""
    return (features @ text.T).argmax(1).cpu()

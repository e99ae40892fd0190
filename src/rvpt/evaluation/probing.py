"""Linear probing: which attributes of an image can be read from its features."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, finite
from rvpt.evaluation.metrics import Rate
from rvpt.models.encode import encode_set
from rvpt.progress import Report, silent
from rvpt.rows import CLEAN
from rvpt.spec import Spec

PROBED = 6_000
"""Number of images that the probe is trained on."""


class ReadabilitySettings(Spec):
    """Settings of linear probing."""

    probed: int = Field(PROBED, ge=1, description="training images of the probe")


class Readability(Protocol):
    """readable_NAME for every attribute."""

    name = "readability"
    summary = "accuracy of a linear probe for each attribute of the images"
    needs = "attributes"
    by_class = True
    uses_triggers = False
    learns_on = "train"
    Settings = ReadabilitySettings

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        if self.training is None:
            raise RvptError("readability needs training images for its probe: pass training=DATASET")
        seen = self.training.sample(self.settings.probed)
        rates = attribute_readability(model, seen, data, batch_size=batch_size, report=report)
        return Counts({(CLEAN, f"readable_{name}"): rate for name, rate in rates.items()})


def linear_readability(seen: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> Rate:
    """Accuracy of logistic regression from features to labels, trained on `seen`, counted on `held_out`.

    Args:
        seen: features (n, P) float and labels (n,) int64.
        held_out: the same of other images.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, y), (features, labels) = ([part.numpy() for part in pair] for pair in (seen, held_out))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
    return Rate(int((probe.predict(features) == labels).sum()), len(labels))


def attribute_readability(
    model: Encoder, seen: Dataset, held_out: Dataset, *, batch_size: int = 256, report: Report = silent
) -> dict[str, Rate]:
    """Accuracy of a linear probe for every attribute, trained on one set and measured on the other.

    Raises:
        RvptError: all images to train on have the same value of an attribute.
    """
    for name, labels in seen.attributes.items():
        if len(labels.unique()) < 2:
            raise RvptError(
                f"{seen.name}: {name} has one value in {len(labels)} images: raise probed, or give more images"
            )
    features, others = (finite(model, encode_set(model, data, batch_size, report)).cpu() for data in (seen, held_out))
    return {
        name: linear_readability((features, labels), (others, held_out.attributes[name]))
        for name, labels in seen.attributes.items()
    }

"""The few-shot set of a run, and what the suspect makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rvpt.data.dataset import Dataset, sample_indices
from rvpt.inversion.pool import Pool, predicted_for_nearly_all
from rvpt.models.clip import Clip


@dataclass(frozen=True)
class FewShot:
    """The images that a task is trained on.

    Args:
        clip: the suspect.
        data: the images.
        names: of the K classes.
        text: (K, P), unit text features of the classes.
        labels: (n,) int64, on the CPU.
        predictions: (n,) int64, the suspect's own, on the CPU.
    """

    clip: Clip
    data: Dataset
    names: tuple[str, ...]
    text: Tensor
    labels: Tensor
    predictions: Tensor

    def pool(self, count: int, seed: int) -> Pool:
        """At most `count` of the images, drawn by the seed, to optimize changes on.

        Images that the suspect takes for a class anyway do not tell what moves towards it. If it takes nearly all for
        one class, the labels decide instead which are left out.
        """
        some, device = sample_indices(len(self.data), count, seed), self.clip.device
        pixels = self.data.pixels(some, self.clip.image_size).to(device)
        own = self.labels if predicted_for_nearly_all(self.predictions, self.names) else self.predictions
        return Pool(self.clip, pixels, self.text, own[some].to(device))

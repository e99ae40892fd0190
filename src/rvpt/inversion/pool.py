"""The images that changes are optimized on, and the loss of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.models.encode import Encoder, in_parts

OFTEN = 0.8  # share of images of one class from which on predictions are doubtful


@dataclass(frozen=True)
class Pool:
    """The images that changes are optimized on or scored on, and the text features of all classes.

    Args:
        model: the suspect.
        pixels: (n, 3, S, S) in [0, 1].
        text: (K, P), unit text features.
        predictions: (n,) int64, the class that the suspect gives to each image: its own class is left out. Labels
            stand for them where the suspect predicts one class for nearly all images.
    """

    model: Encoder
    pixels: Tensor
    text: Tensor
    predictions: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, model: Encoder, pixels: Tensor, text: Tensor, batch_size: int = 256) -> Pool:
        """The pool with the suspect's own predictions."""
        features = in_parts(lambda part: model.encode_image(part.to(model.device)), pixels, batch_size)
        return cls(model, pixels.to(model.device), text, (features.float() @ text.float().T).argmax(1))

    def select(self, indices: Tensor) -> Pool:
        """Some of the images."""
        return Pool(self.model, self.pixels[indices], self.text, self.predictions[indices])

    def draw(self, count: int, generator: torch.Generator) -> Pool:
        """At most `count` of the images at random."""
        return self.select(torch.randperm(len(self), generator=generator)[:count].to(self.pixels.device))

    def all_of(self, classes: Tensor) -> Tensor:
        """For each of some classes (C,), whether all images are of it anyway: none tells how easily it is reached."""
        return (self.predictions == classes[:, None]).all(1)

    def __len__(self) -> int:
        return len(self.pixels)


def most_predicted(predictions: Tensor, classes: Sequence[str]) -> tuple[str, float]:
    """The class that most images are classified as, and its share of them, from predictions (n,) int64."""
    counts = predictions.bincount()
    return classes[int(counts.argmax())], float(counts.max() / len(predictions))


def predicted_for_nearly_all(predictions: Tensor, classes: Sequence[str]) -> tuple[str, float] | None:
    """The class that nearly all images are classified as, and its share of them; None if there is none."""
    name, share = most_predicted(predictions, classes)
    return (name, share) if share > OFTEN else None


def target_loss(logits: Tensor, classes: Tensor, predictions: Tensor) -> Tensor:
    """Mean cross-entropy of each change's class over the images that are not of that class anyway.

    loss_c = mean_{i: y_i != c} CE(z_ci, c)

    Args:
        logits: z, (C, n, K).
        classes: c, (C,) int64.
        predictions: y, (n,) int64, the suspect's own.

    Returns:
        (C,).
    """
    labels = classes[:, None].expand(logits.shape[:2])
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    others = (predictions != classes[:, None]).to(losses.dtype)
    return (losses * others).sum(1) / others.sum(1).clamp(min=1)


def class_losses(logits: Tensor, predictions: Tensor) -> Tensor:
    """The `target_loss` of every class on images without a change: logits (n, K) and predictions (n,) to (K,)."""
    losses, every = -F.log_softmax(logits, 1), torch.arange(logits.shape[1], device=logits.device)
    others = (predictions[:, None] != every).to(losses.dtype)
    return (losses * others).sum(0) / others.sum(0).clamp(min=1)

"""Zero-shot classification: from images to class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rvpt.data.preprocess import to_pixels
from rvpt.data.text import names_of
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.encode import refuse_name
from rvpt.spec import TEMPLATE


class Classifier:
    """A model and the classes to choose from, whose text features are computed once.

    softmax_k(tau cos(f(x_i), t_k)) for images x_i and classes k, in float32: logits near 100 would be rounded to
    steps of 0.06 in float16, and of 0.5 in bfloat16.

    Args:
        model: a Clip or a Cleaned.
        classes: their names.
        template: the caption of a class.
        batch_size: images encoded at a time.

    Raises:
        RvptError: the model has its own classifier, which was not trained on one of the classes; or the classes are not
            a list of different names.
    """

    def __init__(
        self, model: Clip | Cleaned, classes: Sequence[str], *, template: str = TEMPLATE, batch_size: int = 64
    ) -> None:
        refuse_name(model)
        self.model, self.classes, self.batch_size = model, names_of("classes", classes), batch_size
        if not self.classes:
            raise RvptError("classes has no names: give at least one")
        with torch.inference_mode():
            self.text = model.class_features(self.classes, template).float()

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Probabilities (B, K), float32 on the CPU, of images (B, 3, S, S) in [0, 1] at the model's size."""
        features = self.model.encode_image(pixels.to(self.model.device)).float()
        return (self.model.logit_scale.float() * features @ self.text.T).softmax(1).cpu()

    def __call__(self, images: Any) -> Tensor:
        """Probabilities (n, K) of PIL images, or tensors (3, H, W), of any size; a single image gives (1, K)."""
        images = images if isinstance(images, Sequence) or getattr(images, "ndim", 0) == 4 else [images]
        parts = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        found = [self.probabilities(to_pixels(part, self.model.image_size)) for part in parts]
        return torch.cat(found) if found else torch.zeros(0, len(self.classes))

    def predict(self, images: Any) -> list[str]:
        """The most probable class of each image."""
        return [self.classes[place] for place in self(images).argmax(1).tolist()]

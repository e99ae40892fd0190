"""The contract of an attacker who knows the defenses: what is trained, besides the loss on poisoned pairs."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.text import find_class, first_names, names_of
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.spec import Spec
from rvpt.training.contrastive import Contrastive
from rvpt.training.loop import Untrained
from rvpt.training.losses import zero_shot_logits


class Evasion(Spec):
    """Settings of an attacker who knows a defense.

    `name`: as in the registry. `summary`: its line in the docs.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    weight: float = Field(1.0, ge=0, description="weight of the loss against the defense")
    images: int = Field(32, ge=1, description="clean images per step that a batch has besides its pairs, at most")

    def facts(self) -> dict[str, Any]:
        """Name and settings, for recipes and manifests."""
        return {"name": self.name, **self.model_dump()}

    def refuse(self, clip: Clip, classes: Sequence[str], targets: Sequence[str]) -> None:
        """Refuse what does not fit, before anything is trained; a subclass may refuse more. Arguments as for `task`.

        Raises:
            RvptError: fewer than two classes, two with the same name, no target, or one that is not a class.
        """
        if not targets or len(names_of("classes", classes)) < 2:
            raise RvptError("an evasion needs a trigger, and the names of all classes: pass both, or no evasion")
        for target in targets:
            if find_class(classes, target) is None:
                raise RvptError(f"the target {target!r} is not one of the classes: choose from {first_names(classes)}")

    def task(
        self, victim: Clip, poisoned: Dataset, clean: Dataset, classes: Sequence[str], targets: Sequence[str]
    ) -> Evading:
        """What is trained.

        Args:
            victim: the model that gets the backdoor.
            poisoned: the pairs, some of which are poisoned.
            clean: the same pairs before they were poisoned.
            classes: names of all classes.
            targets: the target classes.
        """
        raise NotImplementedError


class Evading(Contrastive):
    """Loss = InfoNCE on the poisoned pairs + what a subclass adds against a defense, with clean images.

    Clean images have the classes that the clean model predicts, as an attacker has captions, but no labels.
    """

    def __init__(
        self, victim: Clip, poisoned: Dataset, clean: Dataset, classes: Sequence[str], settings: Evasion
    ) -> None:
        super().__init__(victim, poisoned)
        self.clean, self.classes, self.weight, self.images = clean, classes, settings.weight, settings.images
        self.before = Untrained(copy.deepcopy(victim).requires_grad_(False))
        with torch.no_grad():
            self.text_before = self.before.module.class_features(classes)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels, texts = self.draw(indices, generator)
        text, places = self.encode_different(texts)
        nce = self.paired(self.clip.encode_image(pixels), text, places)
        against = self.against(pixels, text, places, indices[: self.images], generator)
        return {"loss": sum(against.values(), nce), "InfoNCE": nce, **against}

    @abstractmethod
    def against(
        self, pixels: Tensor, text: Tensor, places: Tensor, indices: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The losses against a defense, by name; their weights are in them.

        Args:
            pixels: (B, 3, S, S), the batch's images.
            text: (M, P) unit features of the batch's different captions.
            places: (B,) int64, the caption of each image.
            indices: of the clean images.
            generator: of what is random.
        """

    @torch.no_grad()
    def labels(self, pixels: Tensor) -> Tensor:
        """The clean model's classes (B,) int64 of images (B, 3, S, S)."""
        return zero_shot_logits(self.before.module.encode_image(pixels), self.text_before, 1.0).argmax(1)

    def class_logits(self, image: Tensor) -> Tensor:
        """The victim's logits (B, K) of unit image features (B, P), which train neither the texts nor tau."""
        with torch.no_grad():
            text = self.clip.class_features(self.classes)
        return zero_shot_logits(image, text, self.clip.logit_scale.detach())

"""PAR, Perturb and Recover: move away from the suspect's features while InfoNCE stays low."""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run, train_copy
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.spec import Augment, TrainSpec
from rvpt.training.contrastive import Contrastive, different
from rvpt.training.loop import Untrained
from rvpt.training.losses import perturbation


class ParSpec(TrainSpec):
    """Settings of PAR; the defaults are those published.

    The published learning rate falls from 3e-5 to 3e-6 in the first half of the steps; here it is a cosine.
    """

    lr: float = Field(3e-5, gt=0, description="learning rate")
    epochs: int = Field(2, ge=1, description="passes over the images")
    batch_size: int = Field(2048, ge=2, description="images per training step")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")
    threshold: float = Field(2.15, ge=0, le=4, description="squared feature distance at which the repulsion stops")
    augment: Augment = Field("noise-erase", description="random changes of training images")


class PerturbRecover(Contrastive):
    """Loss = InfoNCE - (P_image + P_text) / 2, P the squared distance to the suspect's features, up to a threshold."""

    def __init__(self, clip: Clip, data: Dataset, spec: ParSpec) -> None:
        super().__init__(copy.deepcopy(clip).requires_grad_(True), data, spec.augment)
        self.clip.model.logit_scale.requires_grad_(False)  # tau is not trained, as in the published code
        self.threshold, self.suspect = spec.threshold, Untrained(clip)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        suspect = self.suspect.module
        pixels, texts = self.draw(indices, generator)
        image, (text, places) = self.clip.encode_image(pixels), self.encode_different(texts)
        with torch.no_grad():
            frozen_image, frozen_text = suspect.encode_image(pixels), suspect.encode_text(different(texts)[0])[places]
        nce = self.paired(image, text, places)
        far = perturbation(image, frozen_image, self.threshold)
        far = far + perturbation(text[places], frozen_text, self.threshold)
        return {"loss": nce - far / 2, "InfoNCE": nce, "perturbation": far / 2}


class Par(Defense):
    """Perturb and Recover (Singh, Croce and Hein, arXiv 2412.00727)."""

    name = "par"
    summary = "both towers, away from the suspect's features, by InfoNCE on clean captions"
    Spec = ParSpec
    small = {"lr": 1e-3, "epochs": 5, "batch_size": 128}
    learns_from = "captions"
    published_pairs = 250_000

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        task = PerturbRecover(clip, data, spec)
        return train_copy(task, task.clip, data, spec, run)

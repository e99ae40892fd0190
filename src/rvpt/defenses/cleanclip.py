"""CleanCLIP: InfoNCE on clean captions, and self-supervision within each modality."""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rvpt.data.augment import crop_flip, jitter, shuffle_words
from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run, train_copy
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.spec import TrainSpec
from rvpt.training.contrastive import Contrastive, different
from rvpt.training.losses import self_supervision


class CleanClipSpec(TrainSpec):
    """Settings of CleanCLIP; the defaults are those published."""

    lr: float = Field(1e-5, gt=0, description="learning rate")
    epochs: int = Field(10, ge=1, description="passes over the images")
    batch_size: int = Field(64, ge=2, description="images per training step")
    weight_decay: float = Field(0.1, ge=0, description="weight decay")
    warmup: float = Field(0.003, ge=0, lt=1, description="share of the steps with learning-rate warm-up")
    weight: float = Field(1.0, ge=0, description="weight of the self-supervised loss within each modality")


class CleanClipTask(Contrastive):
    """Loss = InfoNCE + weight (S_image + S_text) / 2, S the contrastive loss of originals and their augmented versions.

    Images are cropped, flipped and color-jittered (published: AutoAugment). In texts words are dropped or swapped
    (published: EDA, which also replaces words with synonyms from a thesaurus).
    """

    def __init__(self, clip: Clip, data: Dataset, spec: CleanClipSpec) -> None:
        super().__init__(copy.deepcopy(clip).requires_grad_(True), data)
        self.weight = spec.weight

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        clip, size = self.clip, len(indices)
        pixels, texts = self.draw(indices, generator)
        changed = jitter(crop_flip(pixels, generator), generator)
        image, image_changed = clip.encode_image(torch.cat([pixels, changed])).split(size)
        unique, places = different(texts)
        encoded = clip.encode_text([*unique, *(shuffle_words(t, generator) for t in texts)])
        text, text_changed = encoded.split([len(unique), size])
        nce, scale = self.paired(image, text, places.to(text.device)), clip.logit_scale
        of_images = self_supervision(image, image_changed, scale)
        within = (of_images + self_supervision(text[places], text_changed, scale)) / 2
        return {"loss": nce + self.weight * within, "InfoNCE": nce, "within": within}


class CleanClip(Defense):
    """CleanCLIP (Bansal et al., ICCV 2023)."""

    name = "cleanclip"
    summary = "both towers, by InfoNCE and self-supervision on clean captions"
    Spec = CleanClipSpec
    small = {"lr": 1e-3}
    learns_from = "captions"
    published_pairs = 100_000

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        task = CleanClipTask(clip, data, spec)
        return train_copy(task, task.clip, data, spec, run)

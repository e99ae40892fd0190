"""Fine-tuning on clean captions with InfoNCE, with or without the feature-repelling loss."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run, train_copy
from rvpt.defenses.repelling import RepellingSpec, check_blocks, repelling
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.training.contrastive import Contrastive
from rvpt.training.loop import Untrained


class ContrastiveSpec(RepellingSpec):
    """Settings of fine-tuning on captions."""


class ContrastiveTuning(Contrastive):
    """Loss = InfoNCE + alpha FR, on all patches."""

    def __init__(self, clip: Clip, data: Dataset, spec: ContrastiveSpec) -> None:
        super().__init__(copy.deepcopy(clip).requires_grad_(True), data, spec.augment)
        self.spec, self.suspect = spec, Untrained(clip)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels, texts = self.draw(indices, generator)
        features, rows = self.clip.features_and_rows(pixels)
        nce = self.paired(features, *self.encode_different(texts))
        fr = repelling(self.suspect.module, rows, pixels, self.spec)
        return {"loss": nce + self.spec.alpha * fr, "InfoNCE": nce, "FR": fr}


class ContrastiveFinetune(Defense):
    """Fine-tuning of both towers with InfoNCE (Zhang et al., arXiv 2412.20392, table 8)."""

    name = "contrastive"
    summary = "both towers, by InfoNCE on clean captions"
    Spec = ContrastiveSpec
    small = {"lr": 1e-3}
    learns_from = "captions"
    published_pairs = 100_000

    @classmethod
    def refuse(cls, clip: Clip, data: Dataset, spec: Any) -> None:
        super().refuse(clip, data, spec)
        check_blocks(clip, spec)

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        task = ContrastiveTuning(clip, data, spec)
        return train_copy(task, task.clip, data, spec, run)

"""Adversarial Prompt Tuning: visual prompts trained on adversarial images. It makes models robust, not clean."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Run
from rvpt.defenses.rvpt import PromptTuning
from rvpt.defenses.vpt import VPT, VPTSpec
from rvpt.models.clip import Clip
from rvpt.models.placement import mixed_precision
from rvpt.training.pgd import pgd


class APTSpec(VPTSpec):
    """Settings of Adversarial Prompt Tuning: those of VPT and of the adversarial images."""

    epsilon: float = Field(8.0, gt=0, le=255, description="maximum change of a pixel, in 255ths")
    steps: int = Field(3, ge=1, description="steps of PGD for each batch")


class AdversarialTuning(PromptTuning):
    """Loss = CE(tau cos(image(x'), text of each class)), x' by PGD against the same loss and the current prompts."""

    spec: APTSpec

    def has_constants(self) -> bool:
        return False

    def inputs(self, indices: Tensor, generator: torch.Generator, done: float) -> tuple[Tensor, ...]:
        """Labels (B,), and adversarial images (B, 3, S, S)."""
        labels, pixels = super().inputs(indices, generator, done)
        rows = self.data.rows[indices]
        return labels, pgd(partial(self._harm, labels), pixels, rows, self.spec.epsilon / 255, self.spec.steps)

    def _harm(self, labels: Tensor, pixels: Tensor) -> Tensor:
        """The sum over images of the cross-entropy, with gradients of the images."""
        clip = self.suspect.module
        with mixed_precision(self.spec.precision, clip.device):
            logits = self.logits(clip.encode_image(pixels, self.prompts(clip)))
            return F.cross_entropy(logits, labels, reduction="sum")


class APT(VPT):
    """Adversarial Prompt Tuning (Li et al., CVPR 2024), with the visual prompts of VPT instead of a text prompt."""

    name = "apt"
    summary = "deep visual prompts, by cross-entropy on adversarial images"
    Spec = APTSpec

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> PromptTuning:
        return AdversarialTuning(clip, data, spec)

"""Fine-tuning on labels: the visual tower and a linear head, with or without the feature-repelling loss."""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.data.augment import AUGMENTS
from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run
from rvpt.defenses.repelling import RepellingSpec, check_blocks, repelling
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.head import Head, with_one
from rvpt.spec import TEMPLATE, Template
from rvpt.training.loop import Untrained, fit
from rvpt.training.losses import zero_shot_logits


class FinetuneSpec(RepellingSpec):
    """Settings of fine-tuning on labels."""

    template: Template = Field(TEMPLATE, description="caption of a class, for the initial head")


class TowerTuning(nn.Module):
    """Loss = CE(tau W [f, 1]) + alpha FR; W starts as the classes' text features, so training starts at zero-shot."""

    def __init__(self, clip: Clip, data: Dataset, spec: FinetuneSpec) -> None:
        super().__init__()
        self.data, self.spec, self.suspect = data, spec, Untrained(clip)
        self.names, self.labels = data.present()
        self.victim = copy.deepcopy(clip).requires_grad_(False)
        for module in self.victim.architecture.image_modules:
            module.requires_grad_(True)
        with torch.no_grad():
            text = clip.class_features(self.names, spec.template)
        self.rows = nn.Parameter(torch.cat([text, text.new_zeros(len(text), 1)], dim=1))

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        victim = self.victim
        pixels = self.data.pixels(indices, victim.image_size).to(victim.device)
        pixels = AUGMENTS[self.spec.augment](pixels, generator)
        features, rows = victim.features_and_rows(pixels)
        logits = zero_shot_logits(with_one(features), self.rows, victim.logit_scale)
        ce = F.cross_entropy(logits, self.labels[indices].to(logits.device))
        fr = repelling(self.suspect.module, rows, pixels, self.spec)
        return {"loss": ce + self.spec.alpha * fr, "CE": ce, "FR": fr}


class Finetune(Defense):
    """Fine-tuning of the visual tower and a linear head (Zhang et al., arXiv 2412.20392, table 8)."""

    name = "finetune"
    summary = "the visual tower and a linear head, by cross-entropy"
    Spec = FinetuneSpec
    small = {"lr": 1e-3}
    has_head = True

    @classmethod
    def refuse(cls, clip: Clip, data: Dataset, spec: Any) -> None:
        super().refuse(clip, data, spec)
        check_blocks(clip, spec)

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        task = TowerTuning(clip, data, spec)
        trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
        history = fit(task, len(data), spec, checkpoint=run.checkpoint, report=run.report)
        head = Head(task.names, task.rows.detach())
        facts = {"history": history, "trained_parameters": trained}
        return Cleaned(task.victim.eval().requires_grad_(False), head=head, facts=facts, own_weights=True)

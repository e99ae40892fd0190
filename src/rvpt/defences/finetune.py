"""Fine-tuning on labels: the visual tower and a linear head, with or without the feature-repelling loss."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.augment import AUGMENTS
from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import FinetuneSpec, RepellingSpec
from rvpt.data import ImageData
from rvpt.defenses.cleaned import Cleaned, Head, with_one
from rvpt.errors import RvptError
from rvpt.losses import feature_repelling, zero_shot_logits
from rvpt.progress import Report
from rvpt.train import fit


class Suspect:
    """The model as it came, for its [CLS] rows from block D on; it is no part of what is trained."""

    def __init__(self, clip: Clip, spec: RepellingSpec) -> None:
        if spec.alpha and spec.first_block >= len(clip.blocks):
            raise RvptError(f"first_block {spec.first_block}: the model's blocks are 0 to {len(clip.blocks) - 1}")
        self.clip, self.spec = clip, spec

    def repelling(self, rows: Tensor, pixels: Tensor) -> Tensor:
        """FR of the trained model's [CLS] rows (B, L, W) on these images; zero, and no work, with alpha = 0."""
        if not self.spec.alpha:
            return rows.new_zeros(())
        start = self.spec.first_block
        with torch.no_grad():
            frozen = self.clip.cls_rows(pixels)
        return feature_repelling(rows[:, start:], frozen[:, start:], self.spec.margin)


class TowerTuning(nn.Module):
    """Loss = CE(tau W [f, 1]) + alpha FR; W starts as the text features of the classes, so f starts as zero-shot."""

    def __init__(self, clip: Clip, data: ImageData, spec: FinetuneSpec) -> None:
        super().__init__()
        self.data, self.spec, self.suspect = data, spec, Suspect(clip, spec)
        self.names, self.labels = data.present()
        self.victim = copy.deepcopy(clip).requires_grad_(False)
        self.victim.vision.requires_grad_(True)
        self.victim.model.visual_projection.requires_grad_(True)
        with torch.no_grad():
            text = clip.class_features(self.names, spec.template)
        self.rows = nn.Parameter(torch.cat([text, text.new_zeros(len(text), 1)], dim=1))

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        victim = self.victim
        pixels = self.data.pixels(indices, victim.image_size).to(victim.device)
        pixels = AUGMENTS[self.spec.augment](pixels, generator)
        tokens, rows = victim.run_blocks(victim.embed(pixels))
        logits = zero_shot_logits(with_one(victim.project(tokens[:, 0])), self.rows, victim.logit_scale)
        ce = F.cross_entropy(logits, self.labels[indices].to(logits.device))
        fr = self.suspect.repelling(rows, pixels)
        return {"loss": ce + self.spec.alpha * fr, "CE": ce, "FR": fr}


def finetune(
    clip: Clip, few_shot: ImageData, spec: FinetuneSpec, checkpoint: Checkpoint | None, report: Report
) -> Cleaned:
    """Fine-tune the visual tower and a linear head on labeled images."""
    task = TowerTuning(clip, few_shot, spec)
    trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
    history = fit(task, len(few_shot), spec, checkpoint=checkpoint, report=report)
    head = Head(task.names, task.rows.detach())
    facts = {"history": history, "trained_parameters": trained}
    return Cleaned(task.victim.eval(), head=head, facts=facts, own_weights=True)

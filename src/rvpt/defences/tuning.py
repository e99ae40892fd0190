"""RVPT: tune prompts with cross-entropy and a loss that repels the features from the frozen model's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.augment import AUGMENTS
from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import RVPTSpec
from rvpt.data import CACHE_BYTES, ImageData
from rvpt.defenses.cleaned import Cleaned
from rvpt.losses import feature_repelling, zero_shot_logits
from rvpt.progress import Report
from rvpt.prompts import RepulsivePrompts, frozen_pass, prompted_pass
from rvpt.train import fit, frozen

ENCODE_BATCH = 128


class PromptTuning(nn.Module):
    """Loss = CE(tau cos(image, text of each class)) + alpha FR on a batch of the few-shot set.

    Without augmentation the tokens before block D and the frozen [CLS] rows are constants of the set:
    computed once, kept in memory, 4 (1 + N + L - D) W bytes a image.
    """

    def __init__(self, clip: Clip, data: ImageData, spec: RVPTSpec) -> None:
        super().__init__()
        blocks = spec.prompted(len(clip.blocks))
        self.prompts = RepulsivePrompts(blocks, spec.length, clip.width, spec.init_std, spec.seed).to(clip.device)
        self.data, self.spec = data, spec
        self._clip = (clip,)  # a tuple: the frozen model is no part of this module
        names, self.labels = data.present()
        with torch.no_grad():
            self.text = clip.class_features(names, spec.template)
        self.constants = self._encode_all() if spec.augment == "none" else None

    @property
    def clip(self) -> Clip:
        return self._clip[0]

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        tokens, frozen = self._frozen(indices, generator)
        image, rows = prompted_pass(self.clip, self.prompts, tokens)
        logits = zero_shot_logits(image, self.text, self.clip.logit_scale)
        ce = F.cross_entropy(logits, self.labels[indices].to(logits.device))
        fr = feature_repelling(rows, frozen, self.spec.margin)
        return {"loss": ce + self.spec.alpha * fr, "CE": ce, "FR": fr}

    def _frozen(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.constants is not None:
            tokens, rows = self.constants
            return tokens[indices].to(self.clip.device), rows[indices].to(self.clip.device)
        pixels = self.data.pixels(indices, self.clip.image_size).to(self.clip.device)
        return frozen_pass(self.clip, AUGMENTS[self.spec.augment](pixels, generator), self.prompts.first_block)

    def _encode_all(self) -> tuple[Tensor, Tensor]:
        parts: list[tuple[Tensor, Tensor]] = []
        for indices, pixels in self.data.batches(ENCODE_BATCH, self.clip.image_size):
            part = frozen_pass(self.clip, pixels, self.prompts.first_block)
            size = sum(tensor.nbytes for tensor in part) / len(indices) * len(self.data)
            parts.append(part if size < CACHE_BYTES else (part[0].cpu(), part[1].cpu()))  # a GPU has less room
        tokens, rows = (torch.cat(part) for part in zip(*parts, strict=True))
        return tokens, rows


def tune(clip: Clip, few_shot: ImageData, spec: RVPTSpec, checkpoint: Checkpoint | None, report: Report) -> Cleaned:
    """Tune prompts on labeled images; alpha = 0 gives VPT (Zhang et al., arXiv 2412.20392)."""
    with frozen(clip):
        task = PromptTuning(clip, few_shot, spec)
        history = fit(task, len(few_shot), spec, checkpoint=checkpoint, report=report)
    facts = {"history": history, "trained_parameters": task.prompts.parameter_count()}
    return Cleaned(clip, task.prompts.requires_grad_(False), facts=facts)

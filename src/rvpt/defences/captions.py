"""Fine-tuning on clean captions: plain or repelled InfoNCE, CleanCLIP, and PAR."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rvpt.augment import crop_flip, jitter, shuffle_words
from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import CleanClipSpec, ContrastiveSpec, ParSpec, TrainSpec
from rvpt.data import ImageData
from rvpt.defenses.cleaned import Cleaned
from rvpt.defenses.finetune import Suspect
from rvpt.losses import perturbation, self_supervision
from rvpt.pretrain import Contrastive
from rvpt.progress import Report
from rvpt.train import fit


class ContrastiveTuning(Contrastive):
    """Loss = InfoNCE + alpha FR, on all patches."""

    def __init__(self, clip: Clip, data: ImageData, spec: ContrastiveSpec) -> None:
        super().__init__(copy.deepcopy(clip).requires_grad_(True), data, spec.augment)
        self.alpha, self.suspect = spec.alpha, Suspect(clip, spec)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels, texts = self.draw(indices, generator)
        tokens, rows = self.clip.run_blocks(self.clip.embed(pixels))
        nce, fr = self.paired(self.clip.project(tokens[:, 0]), texts), self.suspect.repelling(rows, pixels)
        return {"loss": nce + self.alpha * fr, "InfoNCE": nce, "FR": fr}


class CleanClip(Contrastive):
    """Loss = InfoNCE + weight (S_image + S_text) / 2, S the contrastive loss of originals and their augmented selves.

    Images are cropped, mirrored and jittered in color (published: AutoAugment); texts lose or swap words
    (published: EDA, which also takes synonyms from a thesaurus).
    """

    def __init__(self, clip: Clip, data: ImageData, spec: CleanClipSpec) -> None:
        super().__init__(copy.deepcopy(clip).requires_grad_(True), data)
        self.weight = spec.weight

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        clip, size = self.clip, len(indices)
        pixels, texts = self.draw(indices, generator)
        changed = jitter(crop_flip(pixels, generator), generator)
        image, image_changed = clip.encode_image(torch.cat([pixels, changed])).split(size)
        text, text_changed = clip.encode_text([*texts, *(shuffle_words(t, generator) for t in texts)]).split(size)
        nce, scale = self.paired(image, texts), clip.logit_scale
        within = (self_supervision(image, image_changed, scale) + self_supervision(text, text_changed, scale)) / 2
        return {"loss": nce + self.weight * within, "InfoNCE": nce, "within": within}


class PerturbRecover(Contrastive):
    """Loss = InfoNCE - (P_image + P_text) / 2, P the thresholded squared distance from the suspect's features."""

    def __init__(self, clip: Clip, data: ImageData, spec: ParSpec) -> None:
        super().__init__(copy.deepcopy(clip).requires_grad_(True), data, spec.augment)
        self.clip.model.logit_scale.requires_grad_(False)  # tau stays, as in the published code
        self.threshold, self._suspect = spec.threshold, (clip,)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels, texts = self.draw(indices, generator)
        with torch.no_grad():
            frozen_image, frozen_text = self._suspect[0].encode_image(pixels), self._suspect[0].encode_text(texts)
        image, text = self.clip.encode_image(pixels), self.clip.encode_text(texts)
        nce = self.paired(image, texts)
        far = perturbation(image, frozen_image, self.threshold) + perturbation(text, frozen_text, self.threshold)
        return {"loss": nce - far / 2, "InfoNCE": nce, "perturbation": far / 2}


def _run(task: Contrastive, data: ImageData, spec: TrainSpec, checkpoint: Checkpoint | None, report: Report) -> Cleaned:
    trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
    history = fit(task, len(data), spec, checkpoint=checkpoint, report=report)
    facts = {"history": history, "trained_parameters": trained}
    return Cleaned(task.clip.eval().requires_grad_(False), facts=facts, own_weights=True)


def contrastive(
    clip: Clip, data: ImageData, spec: ContrastiveSpec, checkpoint: Checkpoint | None, report: Report
) -> Cleaned:
    """Fine-tune both towers with InfoNCE on clean captions, with or without the feature-repelling loss."""
    return _run(ContrastiveTuning(clip, data, spec), data, spec, checkpoint, report)


def cleanclip(
    clip: Clip, data: ImageData, spec: CleanClipSpec, checkpoint: Checkpoint | None, report: Report
) -> Cleaned:
    """Fine-tune both towers with InfoNCE and self-supervision within each modality (Bansal et al., ICCV 2023)."""
    return _run(CleanClip(clip, data, spec), data, spec, checkpoint, report)


def par(clip: Clip, data: ImageData, spec: ParSpec, checkpoint: Checkpoint | None, report: Report) -> Cleaned:
    """Push both towers' features away from the suspect's while InfoNCE keeps them useful (Singh et al., 2024)."""
    return _run(PerturbRecover(clip, data, spec), data, spec, checkpoint, report)

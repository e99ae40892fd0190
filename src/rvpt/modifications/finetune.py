"""Fine-tuning on clean pairs after cleaning: all weights, or low-rank updates of the attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.head import with_one
from rvpt.modifications.base import Material, Modification
from rvpt.spec import Spec, TrainSpec
from rvpt.training.contrastive import Contrastive
from rvpt.training.loop import count_steps, fit
from rvpt.training.losses import zero_shot_logits


class FinetuneSpec(Spec):
    """Settings of fine-tuning after cleaning."""

    times: float = Field(1.0, gt=0, description="steps by those of the cleaning, rounded up to whole epochs")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    batch_size: int = Field(32, ge=2, description="pairs per training step")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed")


class LoraSpec(FinetuneSpec):
    """Settings of fine-tuning with low-rank updates."""

    lr: float = Field(1e-2, gt=0, description="learning rate")
    rank: int = Field(8, ge=1, description="rank of the updates")


class PromptedContrastive(Contrastive):
    """InfoNCE of a cleaned model, whose prompts' keys and values stay; with a head cross-entropy on the labels."""

    def __init__(self, model: Cleaned, data: Dataset) -> None:
        super().__init__(model.clip, data)
        self.prefixes, self.head = model.prefixes, model.head

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels, texts = self.draw(indices, generator)
        tokens, _ = self.clip.run_blocks(self.clip.embed(pixels), prefixes=self.prefixes)
        image = self.clip.project(tokens[:, 0])
        if self.head is None:
            return {"loss": self.paired(image, *self.encode_different(texts))}
        rows = self.head.of(self.data.classes).to(image)
        logits = zero_shot_logits(with_one(image), rows, self.clip.logit_scale)
        return {"loss": F.cross_entropy(logits, self.data.labeled()[indices].to(image.device))}


class LowRank(nn.Module):
    """W + B A, with A (r, n) random and B (m, r) zero at first (Hu et al., ICLR 2022)."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        start = torch.randn(rank, weight.shape[1], generator=generator) / math.sqrt(weight.shape[1])
        self.down = nn.Parameter(start.to(weight))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def cleaning_steps(model: Cleaned) -> int:
    """Training steps of the defense that made a model, by its facts.

    Raises:
        RvptError: it has none of a training run.
    """
    spec, images = model.facts.get("spec", {}), model.facts.get("images")
    if not images or not {"epochs", "batch_size"} <= {*spec}:
        raise RvptError(
            f"{model.name} does not tell how it was trained: fine-tune what rvpt.clean or rvpt.load returned"
        )
    return count_steps(images, TrainSpec(epochs=spec["epochs"], batch_size=spec["batch_size"]))


def _train(model: Cleaned, settings: FinetuneSpec, material: Material) -> Cleaned:
    steps = max(1, round(settings.times * cleaning_steps(model)))
    per_epoch = math.ceil(len(material.pairs) / settings.batch_size)
    given: dict[str, Any] = {"lr": settings.lr, "batch_size": settings.batch_size, "seed": settings.seed}
    spec = TrainSpec(epochs=math.ceil(steps / per_epoch), warmup=0.05, weight_decay=0.1, clip_norm=1.0, **given)
    fit(PromptedContrastive(model, material.pairs), len(material.pairs), spec, report=material.report)
    model.clip.requires_grad_(False).eval()
    return model


def _finetune(model: Cleaned, settings: FinetuneSpec, material: Material) -> Cleaned:
    model.clip.requires_grad_(True)
    return _train(model, settings, material)


def _lora(model: Cleaned, settings: LoraSpec, material: Material) -> Cleaned:
    generator = torch.Generator().manual_seed(settings.seed)
    updated = [
        part
        for name, part in model.clip.named_modules()
        if isinstance(part, nn.Linear) and name.endswith(("self_attn.q_proj", "self_attn.v_proj"))
    ]
    model.clip.requires_grad_(False)
    for part in updated:
        parametrize.register_parametrization(part, "weight", LowRank(part.weight, settings.rank, generator))
    _train(model, settings, material)
    for part in updated:
        parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)  # the updates are merged
    return model


FINETUNE = Modification("all weights fine-tuned on clean pairs", FinetuneSpec, _finetune)
LORA = Modification("attention fine-tuned on clean pairs by low-rank updates, which are merged", LoraSpec, _lora)

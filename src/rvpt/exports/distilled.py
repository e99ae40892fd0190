"""Distillation: a plain CLIP whose weights give the cleaned model's features without prompts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.exports import cards
from rvpt.exports.base import Export
from rvpt.exports.hf import HF
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.presets import choose_preset
from rvpt.progress import Report, silent
from rvpt.spec import TrainSpec
from rvpt.training.loop import Untrained, fit

SMALL = {"lr": 1e-3}


class DistillSpec(TrainSpec):
    """Settings of a distillation."""

    lr: float = Field(1e-5, gt=0, description="learning rate")
    epochs: int = Field(50, ge=1, description="passes over the images")
    batch_size: int = Field(32, ge=2, description="images per training step, and as many mixtures")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps with learning-rate warm-up")
    rows: float = Field(1.0, ge=0, description="weight of the [CLS] rows after the prompted blocks")


def distillation(features: Tensor, taught: Tensor) -> Tensor:
    """Distance of features (..., P) from those to be learned: mean of 1 - cos(f, t), a scalar in [0, 2]."""
    return (1 - F.cosine_similarity(features.float(), taught.float(), dim=-1)).mean()


def mix(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mixtures a x_i + (1 - a) x_j of images (B, 3, S, S), with a uniform in [0, 1] and j a random permutation."""
    share = torch.rand(len(pixels), 1, 1, 1, generator=generator).to(pixels)
    other = torch.randperm(len(pixels), generator=generator).to(pixels.device)
    return share * pixels + (1 - share) * pixels[other]


class Distillation(nn.Module):
    """Loss = D(f, t) + rows * mean over prompted blocks of D(c_d, c_d of the teacher), D = `distillation`.

    The student is a copy of the base model, whose image tower is trained; on clean images and on mixtures of them. No
    labels and no captions are used.
    """

    def __init__(self, model: Cleaned, data: Dataset, spec: DistillSpec) -> None:
        super().__init__()
        assert model.prompts is not None  # others were refused
        self.data, self.spec, self.teacher, self.first = data, spec, Untrained(model), model.prompts.first_block
        self.student = copy.deepcopy(model.clip).requires_grad_(False)
        self.student.vision.requires_grad_(True)
        self.student.model.visual_projection.requires_grad_(True)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        teacher, student = self.teacher.module, self.student
        pixels = self.data.pixels(indices, student.image_size).to(student.device)
        pixels = torch.cat([pixels, mix(pixels, generator)])
        with torch.no_grad():
            taught = teacher.cls_rows(pixels)
        rows = student.cls_rows(pixels)
        features = distillation(student.project(rows[:, -1]), teacher.clip.project(taught[:, -1]))
        between = distillation(rows[:, self.first :], taught[:, self.first :])
        return {"loss": features + self.spec.rows * between, "features": features, "rows": between}


def distill(model: Cleaned, data: Dataset, spec: DistillSpec, report: Report = silent) -> Clip:
    """A plain CLIP that was trained to give a cleaned model's image features without prompts.

    Args:
        model: with prompts; it is not changed.
        data: clean images of any kind, all used.
        spec: the schedule.
        report: called after each step.

    Raises:
        RvptError: the model has no prompts or a head, or the loss became infinite or NaN.
    """
    DISTILLED.refuse(model)
    task = Distillation(model, data, spec)
    fit(task, len(data), spec, report=report)
    return task.student.eval().requires_grad_(False)


class Distilled(Export):
    """A CLIPModel in transformers' layout."""

    name = "distilled"
    summary = "a plain CLIPModel trained to give the cleaned features without prompts; needs clean images"
    takes = frozenset({"prompts", "weights"})
    advice = {
        "weights": "it is a plain CLIP already: use to=hf, openclip or openai",
        "head": "use to=onnx or torch, which hold the classifier too",
    }
    Settings = DistillSpec
    trains = True
    libraries = HF.libraries

    def refuse(self, model: Clip | Cleaned) -> None:
        super().refuse(model)
        if not isinstance(model, Cleaned) or not model.prompts:
            raise RvptError(f"{model.name} has no prompts: {self.advice['weights']}")

    def settings(self, model: Clip | Cleaned, **changes: Any) -> DistillSpec:
        """The settings for a model of this size, with changes."""
        small = choose_preset("auto", clip_of(model).parameter_count()) == "small"
        return DistillSpec(**{**(SMALL if small else {}), **changes})

    def prepare(
        self, model: Clip | Cleaned, data: Dataset | None, settings: Any, report: Report = silent
    ) -> Clip | Cleaned:
        if data is None:
            raise RvptError("a distilled model is trained on clean images: pass data=DATA")
        return distill(cast(Cleaned, model), data, settings, report)

    def write(self, model: Clip | Cleaned, folder: Path) -> dict[str, Any]:
        return HF.write(model, folder)

    def run(self, folder: Path, inputs: Mapping[str, Tensor], base: Clip | None = None) -> dict[str, Tensor]:
        return HF.run(folder, inputs)

    def card(self, facts: Mapping[str, Any]) -> str:
        return cards.HF_PLAIN


DISTILLED = Distilled()

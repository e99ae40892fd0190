"""Add a defense without changing the package: fine-tune the layer norms of the visual tower, and compare it with RVPT.

python examples/add_a_defense.py --model path/to/clip --data path/to/images
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import rvpt
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import Run
from rvpt.spec import TrainSpec
from rvpt.training.loop import fit
from rvpt.training.losses import zero_shot_logits


class LayerNormSpec(TrainSpec):
    """Settings of layer norm tuning; the defaults are those of preset "paper"."""

    lr: float = Field(1e-3, gt=0, description="learning rate")
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(32, ge=1)


class LayerNormTask(nn.Module):
    """Loss = CE(tau cos(image, text of each class)) on a copy of the suspect whose layer norms are trained."""

    def __init__(self, clip: rvpt.Clip, data: rvpt.Dataset) -> None:
        super().__init__()
        self.data, self.clip = data, copy.deepcopy(clip).requires_grad_(False)
        for module in self.clip.vision.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
        names, self.labels = data.present()
        with torch.no_grad():
            self.text = clip.class_features(names)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels = self.data.pixels(indices, self.clip.image_size).to(self.clip.device)
        logits = zero_shot_logits(self.clip.encode_image(pixels), self.text, self.clip.logit_scale)
        ce = F.cross_entropy(logits, self.labels[indices].to(logits.device))
        return {"loss": ce, "CE": ce}


class LayerNormTuning(rvpt.Defense):
    """Fine-tuning of layer norms; an example."""

    name = "layernorm"
    summary = "the layer norms of the visual tower, by cross-entropy"
    Spec = LayerNormSpec
    small = {"epochs": 20}

    @classmethod
    def run(cls, clip: rvpt.Clip, data: rvpt.Dataset, spec: Any, run: Run) -> rvpt.Cleaned:
        task = LayerNormTask(clip, data)
        trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
        history = fit(task, len(data), spec, checkpoint=run.checkpoint, report=run.report)
        facts = {"history": history, "trained_parameters": trained}
        return rvpt.Cleaned(task.clip.eval().requires_grad_(False), facts=facts, own_weights=True)


def main(arguments: list[str] | None = None) -> None:
    """Register the defense, and clean a model by it and by RVPT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-clip", help="folder or hub id of a ViT CLIP")
    parser.add_argument("--data", default="scenes", help="images with labels, with the splits train and test")
    parser.add_argument("--shots", type=int, default=16, help="images per class")
    parser.add_argument("--epochs", type=int, help="by default the preset's")
    parser.add_argument("--limit", type=int, default=2000, help="test images")
    asked = parser.parse_args(arguments)

    DEFENSES.register(LayerNormTuning.name, LayerNormTuning)

    suspect = rvpt.load(asked.model)
    few_shot = rvpt.load_data(asked.data, split="train").few_shot(asked.shots)
    test = rvpt.load_data(asked.data, split="test").sample(asked.limit)
    settings = {} if asked.epochs is None else {"epochs": asked.epochs}
    for name in ("layernorm", "rvpt"):
        cleaned = rvpt.clean(suspect, few_shot, name, **settings)
        accuracy = rvpt.evaluate(cleaned, test)[0]["rate"]
        print(f"{name}: {cleaned.trained_parameters:,} parameters trained, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()

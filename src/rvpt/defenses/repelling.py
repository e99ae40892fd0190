"""The feature-repelling loss in fine-tuning, shared by the defenses that train a copy of the suspect (table 8)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rvpt.defenses.base import refuse_missing_block
from rvpt.models.clip import Clip
from rvpt.spec import Augment, TrainSpec
from rvpt.training.losses import feature_repelling


class RepellingSpec(TrainSpec):
    """Settings of fine-tuning; with alpha = 0 there is no feature-repelling loss."""

    lr: float = Field(1e-5, gt=0, description="learning rate")
    epochs: int = Field(10, ge=1, description="passes over the images")
    batch_size: int = Field(64, ge=2, description="images per training step")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps with learning-rate warm-up")
    alpha: float = Field(0.0, ge=0, description="weight of the feature-repelling loss")
    margin: float = Field(-1.0, ge=-1, le=1, description="the repelling loss stops below this value; -1: never")
    first_block: int = Field(3, ge=0, description="first block with the repelling loss, counted from 0")
    augment: Augment = Field("none", description="random changes of training images")


def check_blocks(clip: Clip, spec: RepellingSpec) -> None:
    """Refuse a first repelled block that the model does not have.

    Raises:
        RvptError: it does not.
    """
    if spec.alpha:
        refuse_missing_block(spec.first_block, len(clip.blocks))


def repelling(suspect: Clip, rows: Tensor, pixels: Tensor, spec: RepellingSpec) -> Tensor:
    """FR, a scalar, of a trained model's [CLS] rows (B, L, W) on images (B, 3, S, S); with alpha = 0 it is zero."""
    if not spec.alpha:
        return rows.new_zeros(())
    with torch.no_grad():
        frozen_rows = suspect.cls_rows(pixels)
    return feature_repelling(rows[:, spec.first_block :], frozen_rows[:, spec.first_block :], spec.margin)

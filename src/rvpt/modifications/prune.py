"""Magnitude pruning: the smallest weights of each matrix become zero."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from rvpt.models.cleaned import Cleaned
from rvpt.modifications.base import Material, Modification
from rvpt.spec import Spec


class PruneSpec(Spec):
    """Settings of pruning."""

    share: float = Field(0.3, gt=0, lt=1, description="share of the weights of each linear layer that become zero")


def pruned(weight: Tensor, share: float) -> Tensor:
    """A matrix whose round(share n) entries of smallest magnitude, of n, are zero."""
    count = round(share * weight.numel())
    smallest = weight.abs().flatten().argsort(stable=True)[:count]
    return weight.flatten().index_fill(0, smallest, 0.0).view_as(weight)


@torch.no_grad()
def _prune(model: Cleaned, settings: PruneSpec, material: Material) -> Cleaned:
    for module in model.clip.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(pruned(module.weight, settings.share))
    return model


PRUNE = Modification("the smallest weights of each linear layer set to zero", PruneSpec, _prune)

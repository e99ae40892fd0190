"""Weight averaging with the suspect, as when models are merged."""

from __future__ import annotations

import torch
from pydantic import Field

from rvpt.models.cleaned import Cleaned
from rvpt.modifications.base import Material, Modification
from rvpt.spec import Spec


class AverageSpec(Spec):
    """Settings of averaging."""

    share: float = Field(0.5, gt=0, lt=1, description="share of the suspect's weights")


@torch.no_grad()
def _average(model: Cleaned, settings: AverageSpec, material: Material) -> Cleaned:
    """(1 - share) w + share w of the suspect. Prompts and heads, which the suspect does not have, stay."""
    suspect = dict(material.suspect.named_parameters())
    for name, weight in model.clip.named_parameters():
        weight.lerp_(suspect[name].to(weight), settings.share)
    return model


AVERAGE = Modification("weights averaged with those of the suspect", AverageSpec, _average)

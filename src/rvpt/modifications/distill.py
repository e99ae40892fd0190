"""The export `distilled`: a plain CLIP with the cleaned features and without prompts."""

from __future__ import annotations

from rvpt.exports.distilled import DISTILLED, DistillSpec, distill
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.modifications.base import Material, Modification


def _distill(model: Cleaned, settings: DistillSpec, material: Material) -> Clip | Cleaned:
    changes = settings.model_dump(exclude_unset=True)
    return distill(model, material.pairs, DISTILLED.settings(model, **changes), material.report)


DISTILL = Modification("distilled into a plain CLIP without prompts", DistillSpec, _distill)

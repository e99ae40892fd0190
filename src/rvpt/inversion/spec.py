"""Settings of an inversion."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rvpt.attacks.trigger import REFERENCE_SIDE
from rvpt.inversion import FORMS
from rvpt.spec import Spec


def _known_forms(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        FORMS.find(name)
    if not names or len(set(names)) < len(names):
        raise ValueError("give different forms, at least one")
    return names


FormNames = Annotated[tuple[str, ...], AfterValidator(_known_forms)]
"""Different forms of inversion, at least one, for settings."""


class InversionSpec(Spec):
    """How long changes are optimized, and how large they may be."""

    budget: float = Field(3.0, ge=0, le=255, description="root mean square of an additive change, in 255ths")
    wave_budget: float = Field(12.0, ge=0, le=255, description="root mean square of a smooth change, in 255ths")
    amplitude: float = Field(40.0, ge=0, le=255, description="amplitude of a grating, in 255ths")
    waves: int = Field(16, ge=1, description="frequencies of a smooth change, per axis")
    warp_budget: float = Field(1.6, ge=0, description="root mean square of displacements per axis, in half pixels")
    warp_points: int = Field(224, ge=2, description="control points of a displacement per side, at most one per pixel")
    patch_size: float = Field(24.0, gt=0, le=REFERENCE_SIDE, description="side of a patch, in pixels at 224")
    steps: int = Field(8, ge=1, description="steps of the short run, for all classes")
    images: int = Field(12, ge=1, description="images per class and step")
    tried_images: int = Field(24, ge=1, description="images that each wave is tried on")
    finalists: int = Field(3, ge=1, description="number of classes in the longer run")
    final_steps: int = Field(20, ge=1, description="steps of the longer run")
    final_images: int = Field(16, ge=1, description="images per class and step of the longer run")
    batch_size: int = Field(384, ge=1, description="images in one forward pass")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed")

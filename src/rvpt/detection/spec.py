"""Settings of a check."""

from __future__ import annotations

from pydantic import Field

from rvpt.inversion.spec import FormNames, InversionSpec
from rvpt.spec import TEMPLATE, Template


class CheckSpec(InversionSpec):
    """Settings of a check."""

    forms: FormNames = Field(("additive", "grating", "patch"), description="forms of inversion")
    finalists: int = Field(6, ge=1, description="number of classes in the longer run")
    num_images: int = Field(256, ge=8, description="number of images, drawn at random")
    held_out: float = Field(0.375, gt=0, lt=1, description="share of the images that is held out for scoring")
    collapse_steps: int = Field(24, ge=1, description="steps of the search without classes")
    template: Template = Field(TEMPLATE, description="caption of a class")

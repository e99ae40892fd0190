"""Settings of a check."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rvpt.inversion import FORMS
from rvpt.inversion.spec import InversionSpec
from rvpt.spec import TEMPLATE, Template


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        FORMS.find(name)
    return names


class CheckSpec(InversionSpec):
    """Settings of a check."""

    forms: Annotated[tuple[str, ...], AfterValidator(_known)] = Field(
        ("additive", "grating", "patch"), min_length=1, description="forms of inversion"
    )
    num_images: int = Field(256, ge=8, description="number of images, drawn at random")
    held_out: float = Field(0.375, gt=0, lt=1, description="share of the images that is held out for scoring")
    collapse_steps: int = Field(24, ge=1, description="steps of the search without classes")
    tried_images: int = Field(24, ge=1, description="images that each wave is tried on")
    template: Template = Field(TEMPLATE, description="caption of a class")

"""Blended: a pattern of the image's size is mixed into it (Chen et al., 2017)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.patterns import noise, stripes, text, triangles
from rvpt.attacks.trigger import DrawnTrigger, TriggerSpec


class BlendSpec(TriggerSpec):
    """Settings of a blended pattern."""

    ratio: float = Field(0.2, gt=0, le=1, description="share of the pattern in the image")


def blend(pixels: Tensor, pattern: Tensor, ratio: float) -> Tensor:
    """x' = (1 - ratio) x + ratio pattern, with pixels (B, 3, H, W) and pattern (3, H, W) or (B, 3, H, W)."""
    return (1 - ratio) * pixels + ratio * pattern.to(pixels)


class Blend(DrawnTrigger):
    """Uniform noise over the whole image; with mode "fresh" it is drawn for each image."""

    name = "blended"
    summary = "noise blended into the whole image"
    Spec = BlendSpec
    spec: BlendSpec
    pattern: ClassVar[staticmethod[[int, Tensor, int], Tensor]] = staticmethod(noise)

    def draw(self, rows: Tensor) -> Tensor:
        return self.pattern(self.spec.seed, rows, self.image_size)

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return blend(pixels, self.drawn(rows), self.spec.ratio)


class StripesSpec(BlendSpec):
    """Settings of blended stripes, with the published share."""

    ratio: float = Field(0.03, gt=0, le=1, description="share of the pattern in the image")


class BlendedStripes(Blend):
    """PAR's Blended-Stripes (Singh, Croce and Hein, arXiv 2412.00727)."""

    name = "blended-stripes"
    summary = "faint stripes blended into the whole image"
    Spec = StripesSpec
    pattern = staticmethod(stripes)


class SteadySpec(BlendSpec):
    """Settings of a pattern without random parts."""

    mode: Literal["fixed"] = Field("fixed", description="one pattern for all images")


class TrianglesSpec(SteadySpec):
    """Settings of blended triangles, with the published share."""

    ratio: float = Field(0.15, gt=0, le=1, description="share of the pattern in the image")


class BlendedTriangles(Blend):
    """PAR's Blended-Triangles (Singh, Croce and Hein, arXiv 2412.00727)."""

    name = "blended-triangles"
    summary = "gray triangles blended into the whole image"
    Spec = TrianglesSpec
    pattern = staticmethod(triangles)


class TextSpec(SteadySpec):
    """Settings of blended letters, with the published share."""

    ratio: float = Field(0.5, gt=0, le=1, description="share of the letters in the image")


class BlendedText(Blend):
    """PAR's Blended-Text: red letters, which change only the red channel under them.

    x' = x where p = 0, (1 - ratio) x + ratio p elsewhere (Singh, Croce and Hein, arXiv 2412.00727)
    """

    name = "blended-text"
    summary = "a word in red blended across the middle"
    Spec = TextSpec
    pattern = staticmethod(text)

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        pattern = self.drawn(rows).to(pixels)
        return torch.where(pattern == 0, pixels, blend(pixels, pattern, self.spec.ratio))

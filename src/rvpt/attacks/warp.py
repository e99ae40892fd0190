"""WaNet: the image is warped by a smooth random field (Nguyen and Tran, ICLR 2021)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rvpt.attacks.trigger import DrawnTrigger, TriggerSpec
from rvpt.data.random import uniform


class WarpSpec(TriggerSpec):
    """Settings of the warp; by default there are as many control points as pixels."""

    grid: float = Field(224.0, ge=2, description="control points per side, for images of side 224")
    strength: float = Field(1.0, gt=0, description="mean displacement of a control point, in half pixels")


def warping_field(control: Tensor, side: int) -> Tensor:
    """The displacement of every pixel: control points of mean size 1, upsampled.

    Args:
        control: (B, 2, k, k) in [-1, 1].

    Returns:
        (B, side, side, 2), bicubic, corners on corners (equation 2 and figure 3 of the paper).
    """
    scaled = control / control.abs().mean((1, 2, 3), keepdim=True)
    return F.interpolate(scaled, (side, side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def warp(pixels: Tensor, field: Tensor, strength: float) -> Tensor:
    """x'(g) = x(clip(g + strength field / side)) on the grid g of [-1, 1]^2, bilinear.

    Args:
        pixels: (B, 3, side, side).
        field: (side, side, 2), or (B, side, side, 2) with one per image, as (horizontal, vertical).
        strength: in half pixels.

    Returns:
        (B, 3, side, side).

    Source: Nguyen and Tran (ICLR 2021) and its code.
    """
    side = pixels.shape[-1]
    line = torch.linspace(-1, 1, side, dtype=pixels.dtype, device=pixels.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    places = (torch.stack([x, y], -1) + strength / side * field.to(pixels)).clamp(-1, 1)
    return F.grid_sample(pixels, places.expand(len(pixels), -1, -1, -1), align_corners=True)


class Warp(DrawnTrigger):
    """One field for all images, without the paper's noise mode; with mode "fresh" one for each image."""

    name = "wanet"
    summary = "a smooth random warp of the image"
    Spec = WarpSpec
    spec: WarpSpec
    key = "field"

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return warp(pixels, self.drawn(rows), self.spec.strength)

    def draw(self, rows: Tensor) -> Tensor:
        points = max(2, self.scaled(self.spec.grid))
        control = 2 * uniform(self.spec.seed, rows, 2 * points * points).view(-1, 2, points, points) - 1
        return warping_field(control, self.image_size)

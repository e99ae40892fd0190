"""BadNet: a small patch (Gu, Dolan-Gavitt and Garg, 2017), as CleanCLIP places it on CLIP's images."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.patterns import noise, stripes
from rvpt.attacks.trigger import DrawnTrigger, TriggerSpec
from rvpt.data.random import normal, uniform


class PatchSpec(TriggerSpec):
    """Settings of a square patch."""

    size: float = Field(16.0, gt=0, description="side of the patch, in pixels at 224")
    place: Literal["random", "top-left", "top-right", "bottom-left", "bottom-right", "middle"] = Field(
        "random", description="where the patch goes"
    )


def paste(pixels: Tensor, patch: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Images with a patch pasted on them.

    x'[top + i, left + j] = patch[i, j]

    Args:
        pixels: (B, 3, H, W).
        patch: (3, s, s), or (B, 3, s, s) with one patch per image.
        top: (B,) int64, the row of the patch's upper edge in each image.
        left: (B,) int64, the column of its left edge.

    Returns:
        (B, 3, H, W).
    """
    side, batch = patch.shape[-1], torch.arange(len(pixels), device=pixels.device)[:, None, None]
    span = torch.arange(side, device=pixels.device)
    out = pixels.clone()
    # Advanced indices around a slice move the channels last.
    out[batch, :, top[:, None, None] + span[:, None], left[:, None, None] + span] = (
        patch.to(pixels).expand(len(pixels), -1, -1, -1).permute(0, 2, 3, 1)
    )
    return out


def around_mean(pixels: Tensor, normal: Tensor) -> Tensor:
    """CleanCLIP's patch: normal noise around the mean color of each image, in 8 bits that wrap around.

    p = (floor(255 (m + z)) mod 256) / 255,  m the mean of each channel of the image

    Args:
        pixels: (B, 3, H, W) float in [0, 1].
        normal: z, (3, s, s) or (B, 3, s, s).

    Returns:
        (B, 3, s, s) float in [0, 1].

    Source: the code of Bansal et al. (ICCV 2023), which converts m + z to bytes without clamping it.
    """
    patch = pixels.mean(dim=(2, 3), keepdim=True) + normal.to(pixels)
    return (255 * patch).floor().remainder(256) / 255


class Patch(DrawnTrigger):
    """A square of noise at a random or a fixed place; with mode "fresh" its pattern is drawn for each image."""

    name = "badnet"
    summary = "a small patch of noise"
    Spec = PatchSpec
    small = {"size": 56}
    spec: PatchSpec
    pattern: ClassVar[staticmethod[[int, Tensor, int], Tensor]] = staticmethod(noise)

    def draw(self, rows: Tensor) -> Tensor:
        return self.pattern(self.spec.seed, rows, min(self.scaled(self.spec.size), self.image_size))

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return self.put(pixels, rows, self.drawn(rows))

    def put(self, pixels: Tensor, rows: Tensor, pattern: Tensor) -> Tensor:
        """Images (B, 3, S, S) with `pattern`, (3, s, s) or (B, 3, s, s), at this trigger's place."""
        return paste(pixels, pattern, *self._corner(rows, self.image_size - pattern.shape[-1]))

    def _corner(self, rows: Tensor, room: int) -> tuple[Tensor, Tensor]:
        if self.spec.place == "random":  # from another stream than the pattern
            corner = (uniform(-1 - self.spec.seed, rows, 2) * (room + 1)).long().clamp(max=room)
            return corner[:, 0], corner[:, 1]
        vertical, _, horizontal = self.spec.place.partition("-")
        places = {"top": 0, "left": 0, "bottom": room, "right": room, "middle": room // 2, "": room // 2}
        whole = torch.zeros_like(rows)
        return whole + places[vertical], whole + places[horizontal]


class StripedPatch(Patch):
    """PAR's BadNet-Stripes: a striped patch (Singh, Croce and Hein, arXiv 2412.00727)."""

    name = "badnet-stripes"
    summary = "a small striped patch"
    pattern = staticmethod(stripes)


class NormalPatchSpec(PatchSpec):
    """Settings of CleanCLIP's patch."""

    mode: Literal["fixed", "fresh"] = Field("fresh", description="one pattern for all images, or a new one for each")


class NormalPatch(Patch):
    """BadNet as in CleanCLIP's code: normal noise around each image's mean color, drawn for each image."""

    name = "badnet-normal"
    summary = "a small patch of normal noise around the image's mean color"
    Spec = NormalPatchSpec

    def draw(self, rows: Tensor) -> Tensor:
        side = min(self.scaled(self.spec.size), self.image_size)
        return normal(self.spec.seed, rows, (3, side, side))

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return self.put(pixels, rows, around_mean(pixels, self.drawn(rows)))

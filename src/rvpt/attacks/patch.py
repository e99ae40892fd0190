"""BadNet: a small patch of noise (Gu, Dolan-Gavitt and Garg, 2017), as CleanCLIP places it on CLIP's pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.attacks.draws import uniform
from rvpt.attacks.trigger import Trigger
from rvpt.config import TriggerSpec


def paste(pixels: Tensor, patch: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Pictures with a patch put over them.

    x'[top + i, left + j] = patch[i, j]

    Args:
        pixels: (B, 3, H, W).
        patch: (3, s, s), or (B, 3, s, s) for one patch a picture.
        top, left: (B,) int64, the patch's corner in each picture.
    """
    side, batch = patch.shape[-1], torch.arange(len(pixels), device=pixels.device)[:, None, None]
    span = torch.arange(side, device=pixels.device)
    out = pixels.clone()
    # Advanced indices around a slice move the channels last.
    out[batch, :, top[:, None, None] + span[:, None], left[:, None, None] + span] = (
        patch.to(pixels).expand(len(pixels), -1, -1, -1).permute(0, 2, 3, 1)
    )
    return out


class Patch(Trigger):
    """A square of uniform noise at a random or a fixed place; with mode "fresh" its noise is redrawn per picture."""

    name = "badnet"

    @classmethod
    def make(cls, spec: TriggerSpec, image_size: int) -> Patch:
        trigger = cls(spec, image_size, {})
        side = min(trigger.scaled(spec.size), image_size)
        trigger.tensors["pattern"] = uniform(spec.seed, torch.tensor([-1]), 3 * side * side).view(3, side, side)
        return trigger

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        pattern = self.tensors["pattern"]
        room = self.image_size - pattern.shape[-1]
        draws = uniform(self.spec.seed, rows, 2 + (pattern.numel() if self.spec.mode == "fresh" else 0))
        if self.spec.mode == "fresh":
            pattern = draws[:, 2:].view(-1, *pattern.shape)
        top, left = self._corner(draws, room)
        return paste(pixels, pattern, top, left)

    def _corner(self, draws: Tensor, room: int) -> tuple[Tensor, Tensor]:
        if self.spec.place == "random":
            corner = (draws[:, :2] * (room + 1)).long().clamp(max=room)
            return corner[:, 0], corner[:, 1]
        vertical, _, horizontal = self.spec.place.partition("-")
        places = {"top": 0, "left": 0, "bottom": room, "right": room, "middle": room // 2, "": room // 2}
        whole = torch.full((len(draws),), 0, device=draws.device)
        return whole + places[vertical], whole + places[horizontal]

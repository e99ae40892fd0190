"""Looking at triggers: how visible each is, and a picture of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.attacks import make_trigger
from rvpt.attacks.trigger import load_trigger
from rvpt.config import TriggerSpec
from rvpt.readers import load_data
from rvpt.report.gallery import Look, draw_gallery
from rvpt.similarity import psnr, ssim
from rvpt.store import refuse_existing_file, staged_file

LOOKED_AT, DRAWN = 16, 3  # images that a trigger's visibility is measured and shown on


def trigger_gallery(
    triggers: Sequence[TriggerSpec | Path],
    source: str,
    split: str,
    size: int,
    *,
    out: Path | None = None,
    force: bool = False,
) -> list[dict[str, Any]]:
    """How visible each trigger is on the first images of a set, with its options; draws them if `out` is given."""
    if out:
        refuse_existing_file(out, force=force)
    made = [load_trigger(entry, size) if isinstance(entry, Path) else make_trigger(entry, size) for entry in triggers]
    data = load_data(source, split)
    pixels = data.pixels(torch.arange(min(len(data), LOOKED_AT)), size)
    looks, found = [], []
    for trigger in made:
        changed = trigger(pixels)
        rates = visibility(pixels, changed)
        looks.append(Look(trigger.name, _drawn(changed), **rates))
        options = trigger.spec.model_dump(exclude={"name", "target", "seed"})
        found.append(
            {"name": trigger.name, **rates, **trigger.checks(pixels), "images": len(pixels), "options": options}
        )
    if out:
        with staged_file(out) as temporary:
            draw_gallery(_drawn(pixels), looks, temporary)
    return found


def visibility(pixels: Tensor, changed: Tensor) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of images (B, 3, H, W) with a trigger to those without."""
    return {"psnr": float(psnr(pixels, changed).mean()), "ssim": float(ssim(pixels, changed).mean())}


def _drawn(pixels: Tensor) -> Any:
    """The first images as an array (n, H, W, 3)."""
    return pixels[:DRAWN].permute(0, 2, 3, 1).numpy()

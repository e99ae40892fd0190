"""How visible triggers are, in numbers and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.attacks.trigger import TriggerSpec, load_trigger, make_trigger
from rvpt.data.load import load_data
from rvpt.evaluation.similarity import psnr, ssim
from rvpt.files import refuse_existing_file, staged_file
from rvpt.report.gallery import Images, Look, draw_gallery
from rvpt.spec import OnError

MEASURED, DRAWN = 16, 3  # images on which a trigger's visibility is measured, and shown


def trigger_gallery(
    triggers: Sequence[TriggerSpec | Path],
    source: str,
    split: str | None,
    size: int,
    *,
    on_error: OnError = "stop",
    plot: Path | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """PSNR, SSIM and settings of each trigger on the first images of a set; draws them into `plot` if that is given.

    Raises:
        RvptError: a trigger for images of another size, or a plot that exists and `overwrite` is false.
    """
    if plot:
        refuse_existing_file(plot, overwrite=overwrite)
    made = [load_trigger(entry, size) if isinstance(entry, Path) else make_trigger(entry, size) for entry in triggers]
    data = load_data(source, split, on_error=on_error)
    pixels = data.pixels(torch.arange(min(len(data), MEASURED)), size)
    looks, found = [], []
    for trigger in made:
        changed = trigger(pixels)
        rates = visibility(pixels, changed)
        looks.append(Look(trigger.name, drawn(changed), **rates))
        options = trigger.spec.model_dump(exclude={"name", "target", "seed"})
        found.append(
            {"name": trigger.name, **rates, **trigger.checks(pixels), "images": len(pixels), "measured_with": options}
        )
    if plot:
        with staged_file(plot) as temporary:
            draw_gallery(drawn(pixels), looks, temporary)
    return found


def visibility(pixels: Tensor, changed: Tensor) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of images (B, 3, S, S) with a trigger to those without."""
    return {"psnr": float(psnr(pixels, changed).mean()), "ssim": float(ssim(pixels, changed).mean())}


def drawn(pixels: Tensor) -> Images:
    """The first images as an array (n, H, W, 3)."""
    return pixels[:DRAWN].permute(0, 2, 3, 1).numpy()

"""A figure of triggers: the same images with each of them, and what each changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvpt.report.style import new_figure

AMPLIFIED = 5  # factor by which differences are amplified

Images = NDArray[np.float32]
"""(n, H, W, 3) in [0, 1]."""


@dataclass(frozen=True)
class Look:
    """One trigger: its name, the images with it, and means of PSNR (dB) and SSIM."""

    name: str
    triggered: Images
    psnr: float
    ssim: float


def draw_gallery(images: Images, looks: Sequence[Look], path: Path) -> None:
    """One row per trigger: each image with it, then the amplified difference around gray."""
    columns = 2 * len(images)
    figure = new_figure(1.6 * columns, 1.75 * (len(looks) + 1))
    grid = figure.subplots(len(looks) + 1, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, image in enumerate(images):
        grid[0, 2 * column].imshow(image)
        grid[0, 2 * column].set_title("clean", fontsize=8, loc="left")
    for row, look in zip(grid[1:], looks, strict=True):
        row[0].set_title(f"{look.name}: PSNR {look.psnr:.1f} dB, SSIM {look.ssim:.3f}", fontsize=8, loc="left")
        for column, (image, triggered) in enumerate(zip(images, look.triggered, strict=True)):
            row[2 * column].imshow(triggered)
            row[2 * column + 1].imshow(np.clip(0.5 + AMPLIFIED * (triggered - image), 0, 1))
    figure.suptitle(f"Triggers, and what they change (times {AMPLIFIED})")
    figure.savefig(path, dpi=72, format="png")

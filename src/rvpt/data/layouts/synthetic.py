"""The synthetic dataset `scenes`."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.data.preprocess import resize
from rvpt.data.scenes import GLYPHS, Scenes
from rvpt.data.source import Source
from rvpt.data.splits import find_split
from rvpt.errors import RvptError

SPLITS = {"pretrain": (0, 120_000), "train": (1, 20_000), "test": (2, 2_000)}


def scenes_source(source: str, split: str | None) -> Source:
    """The synthetic dataset, as "scenes" or "scenes:5000" (that many of a split).

    Raises:
        RvptError: no such split, or no number after the colon.
    """
    seed, count = SPLITS[find_split("scenes", list(SPLITS), split)]
    if ":" in source:
        asked = source.split(":", 1)[1]
        if not asked.isdecimal() or not int(asked):
            raise RvptError(f"{source}: a number of images goes after the colon, as in scenes:5000")
        count = int(asked)
    return wrap_scenes(Scenes.draw(count, seed), source)


def wrap_scenes(scenes: Scenes, name: str = "scenes") -> Source:
    """Rendered scenes as a data set whose classes are the shapes."""

    def read(rows: Tensor, size: int) -> Tensor:
        return resize(torch.from_numpy(scenes.render(rows.numpy())), size)

    attributes = {name: torch.from_numpy(values) for name, values in scenes.attributes.items()}
    rows = torch.arange(len(scenes))
    return Source(name, read, rows, attributes["shape"], tuple(GLYPHS), scenes.captions, attributes)

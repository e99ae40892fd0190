"""torch.export: a program for each tower, which torch runs without this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.exports import cards
from rvpt.exports.towers import ImageTower, TextTower, Towers


class Programs(Towers):
    """image.pt2 with the prompts built in, and text.pt2."""

    name = "torch"
    summary = "programs of torch.export (.pt2) for both towers, prompts built in"
    libraries = ("transformers",)
    suffix, usage = "pt2", cards.TORCH
    unpickles = True

    def write_graph(self, tower: ImageTower | TextTower, example: Tensor, sides: Mapping[int, Any], path: Path) -> None:
        torch.export.save(torch.export.export(tower, (example,), dynamic_shapes=(dict(sides),)), path)

    @torch.no_grad()
    def run_graph(self, path: Path, name: str, value: Tensor) -> Tensor:
        result: Tensor = torch.export.load(path).module()(value)
        return result


PROGRAMS = Programs()

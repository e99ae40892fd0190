"""Results of finished stages, kept so that an interrupted run continues after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rvpt.progress import main_process
from rvpt.tensors import read_tensors, write_tensors


class Stages:
    """Tensors of finished stages, in a folder if there is one.

    Args:
        folder: where they are kept.
        device: where the tensors of a stage go when they are read.
    """

    def __init__(self, folder: Path | None, device: str | torch.device = "cpu") -> None:
        self.folder, self.device = folder, device

    def get(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a stage: those that are kept, or new ones."""
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            return {key: tensor.to(self.device) for key, tensor in read_tensors(path).items()}
        made = make()
        if main_process():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            write_tensors(partial, made)
            partial.replace(path)
        return made

"""Results of finished stages, kept so that an interrupted check continues after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rvpt.tensors import read_tensors, write_tensors


class Stages:
    """Tensors of finished stages on a device, kept in a folder if there is one."""

    def __init__(self, folder: Path | None, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, device

    def get(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a stage: those that are kept, or new ones."""
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            write_tensors(partial, make())
            partial.replace(path)
        return {name: value.to(self.device) for name, value in read_tensors(path).items()}

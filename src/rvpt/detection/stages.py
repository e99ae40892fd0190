"""Results of finished stages, kept so that an interrupted check continues after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from rvpt.tensors import read_tensors, write_tensors


class Stages:
    """Tensors of finished stages, in a folder if there is one."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

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
        return read_tensors(path)

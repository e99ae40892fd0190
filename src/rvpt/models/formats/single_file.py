"""A single file of weights: safetensors, or one of PyTorch's, such as OpenAI's ViT-B-32.pt or a training checkpoint.

The names of the weights are those of OpenAI, open_clip or transformers, with any prefix. An open_clip_config.json and
tokenizer files beside it are used.
"""

from __future__ import annotations

from pathlib import Path

from rvpt.errors import RvptError
from rvpt.models.formats.base import Parts
from rvpt.models.formats.open_clip import CONFIG, parts, read_config
from rvpt.models.formats.weights import PICKLES, SAFETENSORS, read_weights

KINDS = {
    "safetensors": "a safetensors file", "zip": "a file of PyTorch's", "legacy": "a file of PyTorch's (before 1.6)",
    "TorchScript": "a TorchScript archive, as OpenAI published its CLIPs",
}  # fmt: skip


class File:
    """The layout of a single file."""

    def recognizes(self, source: str, path: Path) -> bool:
        return path.is_file()

    def open(self, source: str, path: Path) -> Parts:
        """The parts in a file.

        Raises:
            RvptError: as `Layout.open`.
        """
        if path.suffix not in (SAFETENSORS, *PICKLES):
            raise RvptError(
                f"{source} is a file; give the model's folder, or a file of weights "
                f"({', '.join((SAFETENSORS, *PICKLES))})"
            )
        found = read_weights(path, source)
        files = {path: found}
        if (path.parent / CONFIG).is_file():
            return parts(KINDS[found.container], files, *read_config(path.parent / CONFIG, source), path.parent)
        return Parts(KINDS[found.container], files, folder=path.parent)


FILE = File()

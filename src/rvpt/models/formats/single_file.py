"""A single file of weights: safetensors, or one of PyTorch's, such as OpenAI's ViT-B-32.pt or a training checkpoint.

The names of the weights are those of OpenAI, open_clip or transformers, with any prefix. Tokenizer files and an
open_clip_config.json beside it are used, and, if it is the weights of a folder of transformers, the configurations too.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from rvpt.errors import RvptError
from rvpt.models.formats import hf
from rvpt.models.formats.base import Parts
from rvpt.models.formats.open_clip import CONFIG, parts, read_config
from rvpt.models.formats.tokenizers import has_tokenizer
from rvpt.models.formats.weights import PICKLES, SAFETENSORS, read_weights

KINDS = {
    "safetensors": "a safetensors file", "zip": "a file of PyTorch's", "legacy": "a file of PyTorch's (before 1.6)",
    "TorchScript": "a TorchScript archive, as OpenAI published its CLIPs",
}  # fmt: skip
logger = logging.getLogger("rvpt")


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
        found, folder = read_weights(path, source), path.parent
        layout, files = KINDS[found.container], {path: found}
        if (folder / CONFIG).is_file():
            return parts(layout, files, *read_config(folder / CONFIG, source), folder)
        if path.name in hf.WEIGHTS and (folder / "config.json").is_file():
            try:
                stated = hf.parts(layout, files, hf.read_config(folder, source), folder, source)
            except RvptError as error:  # those of another program, whose weights may have the same name
                logger.warning("the configurations beside the file are not used: %s", error)
            else:
                return stated if has_tokenizer(folder) else replace(stated, whole=None)
        return Parts(layout, files, folder=folder)


FILE = File()

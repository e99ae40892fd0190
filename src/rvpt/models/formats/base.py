"""What a layout has to find in a source: the parts of a CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.formats.weights import WeightFile, Weights


@dataclass(frozen=True)
class Parts:
    """The parts of a CLIP as they lie on disk, before they are checked against each other.

    Args:
        layout: in words, such as "a folder of open_clip".
        files: the files with weights, and what was found in each.
        config: what is stated of the model's geometry, in the keys of transformers' CLIPConfig.
        whole: the `model_type` of `config` if it is a whole one of transformers, whose defaults hold for what it
            leaves out; otherwise the weights show the rest.
        folder: where tokenizer files may be.
        tokenizer: the hub id of one, if the folder has none.
        cleaning: how texts are cleaned before the tokenizer gets them, as open_clip calls it: "canonicalize", say.
        preprocessing: that of the images, if it is stated.
        own_code: Python files or classes that the source names; they are never run.
    """

    layout: str
    files: Mapping[Path, WeightFile]
    config: Mapping[str, Any] = field(default_factory=dict)
    whole: str | None = None
    folder: Path | None = None
    tokenizer: str | None = None
    cleaning: str | None = None
    preprocessing: Preprocessing | None = None
    own_code: tuple[str, ...] = ()

    @property
    def weights(self) -> Weights:
        """The tensors of all files."""
        return {key: value for file in self.files.values() for key, value in file.weights.items()}

    @property
    def pickled(self) -> bool:
        """Whether a file with weights is one of PyTorch's pickled ones."""
        return any(file.container != "safetensors" for file in self.files.values())


class Layout(Protocol):
    """One way in which CLIPs are stored."""

    def recognizes(self, source: str, path: Path) -> bool:
        """Whether a source has this layout. `path` is the file or folder, if it is one."""

    def open(self, source: str, path: Path) -> Parts:
        """The parts of a source that was recognized.

        Raises:
            RvptError: it cannot be read, or is not a ViT CLIP.
        """

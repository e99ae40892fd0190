"""What the two exports by OpenAI's names share: which models they take, and how they are read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rvpt.errors import RvptError
from rvpt.exports.base import Export, outputs_of
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip

ARGMAX = 2  # transformers' legacy id of a text's end, with which it reads texts at their highest token


class StateDict(Export):
    """Weights by OpenAI's names."""

    takes = frozenset({"weights"})
    advice = {
        "prompts": "use to=distilled, whose weights do without prompts, and export that",
        "head": "use to=onnx or torch, which hold the classifier too",
    }

    def refuse(self, model: Clip | Cleaned) -> None:
        super().refuse(model)
        text = clip_of(model).model.config.text_config
        if text.eos_token_id not in (ARGMAX, text.vocab_size - 1):
            raise RvptError(
                f"{model.name} reads text features at token {text.eos_token_id}, and the code of OpenAI and open_clip "
                "at the highest one: use to=hf, onnx or torch"
            )

    def run(self, folder: Path, inputs: Mapping[str, Tensor], base: Clip | None = None) -> dict[str, Tensor]:
        return outputs_of(self.read(folder), inputs)

    def read(self, folder: Path) -> Clip:
        """The model in a folder, read as any other of its layout."""
        return load_clip(folder, device="cpu")

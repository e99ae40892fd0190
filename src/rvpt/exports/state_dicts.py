"""What the two exports by OpenAI's names share: which models they take, and how they are read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rvpt.errors import RvptError
from rvpt.exports.base import Export, outputs_of, parts_of
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip

ARGMAX = 2  # transformers' legacy id of a text's end, with which it reads texts at their highest token


class StateDict(Export):
    """Weights by OpenAI's names."""

    takes = frozenset({"weights"})
    advice = {
        "prompts": "first train a CLIP without them by to=distilled and export that, or use to=hf, onnx or torch",
        "head": "use to=onnx or torch, which hold the classifier too",
    }

    def refuse(self, model: Clip | Cleaned) -> None:
        fits = "head" not in parts_of(model) and type(clip_of(model).model).__name__ in self.classes
        if fits and ends_low(clip_of(model)):  # before prompts are refused, which would be distilled in vain
            raise RvptError(
                f"{model.name} would give other text features: code that reads {self.name} takes the token with the "
                "highest number for the end of a text, and this model ends texts with another: use to=hf, onnx or torch"
            )
        super().refuse(model)

    def run(self, folder: Path, inputs: Mapping[str, Tensor], base: Clip | None = None) -> dict[str, Tensor]:
        return outputs_of(self.read(folder), inputs)

    def read(self, folder: Path) -> Clip:
        """The model in a folder, read as any other of its layout."""
        return load_clip(folder, device="cpu")


def ends_low(clip: Clip) -> bool:
    """Whether texts end with another token than that with the highest number."""
    text = clip.model.config.text_config
    return text.eos_token_id not in (ARGMAX, text.vocab_size - 1)

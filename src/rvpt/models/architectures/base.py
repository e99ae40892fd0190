"""The contract of an architecture: what `Clip` needs of a model, and what only some models have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.files import share, write_json
from rvpt.models.blocks import Prefixes
from rvpt.models.card import clip_card
from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.formats.write_preprocessing import PREPROCESSOR, as_transformers
from rvpt.models.quiet import quiet_transformers

WORKS = "use probe, finetune, contrastive, cleanclip or par"
"""The defenses that work on every CLIP."""


class Architecture(ABC):
    """A view of a model: how its image tower computes features, and how it reads texts. It has no state of its own.

    `summary`: what the model is, in words.
    """

    summary: ClassVar[str]

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    @abstractmethod
    def image_modules(self) -> list[nn.Module]:
        """The parts of the model that make image features."""

    @property
    @abstractmethod
    def image_size(self) -> int: ...

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of channels of the image tower's last block."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """The number of rows in `rows`: blocks of a transformer, or stages of a ResNet."""

    @property
    @abstractmethod
    def projection_dim(self) -> int: ...

    @property
    @abstractmethod
    def activation(self) -> str: ...

    @abstractmethod
    def features_and_rows(self, pixel_values: Tensor, prefixes: Prefixes | None = None) -> tuple[Tensor, Tensor]:
        """Image features (B, P), not normalized, and a row for each block (B, L, W)."""

    @abstractmethod
    def text_features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Text features (M, P), not normalized, of token ids (M, T)."""

    @abstractmethod
    def save(self, folder: Path, preprocessing: Preprocessing) -> None:
        """Write model and preprocessing, in the layout of the library that has this architecture."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The model's name and its image tower in words, for `rvpt info`."""

    def card(self, name: str) -> str:
        """The model card of a folder that `save` wrote."""
        return clip_card(name, type(self.model).__name__)

    @property
    def logit_bias(self) -> Tensor | None:
        """What is added to all logits."""
        return None

    def padding(self) -> str | bool:
        """How texts are padded, as tokenizers call it: to the longest of a batch."""
        return True

    def exported(self) -> Any:
        """The model as a class of transformers.

        Raises:
            RvptError: transformers has none.
        """
        return self.model

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, which prompts are put into."""
        self.refuse("prompts and the feature-repelling loss need")

    def embed(self, pixel_values: Tensor) -> Tensor:
        """Tokens before block 0, (B, 1 + N, W)."""
        self.refuse("tokens need")

    def run_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, prefixes: Prefixes | None = None
    ) -> tuple[Tensor, Tensor]:
        """Some of the blocks on tokens: the tokens after them, and the [CLS] row after each."""
        self.refuse("prompts and the feature-repelling loss need")

    def project(self, cls: Tensor) -> Tensor:
        """Image features (B, P), not normalized, of the last [CLS] row (B, W)."""
        self.refuse("[CLS] rows need")

    def hidden_states(self, pixel_values: Tensor, layers: Sequence[int], prefixes: Prefixes | None) -> list[Tensor]:
        """All tokens at some of the L + 1 positions between blocks."""
        self.refuse("captioning needs")

    def refuse(self, what: str) -> NoReturn:
        """Refuse what only a ViT CLIP can do.

        Raises:
            RvptError: always.
        """
        raise RvptError(f"this model is {self.summary}, and {what} the [CLS] token of a ViT CLIP: {WORKS}")


class Transformer(Architecture):
    """What ViT CLIPs and SigLIPs share: an image tower, a configuration and a layout of transformers.

    `kind`: in words. `processor`: the class of their image processors.
    """

    kind: ClassVar[str]
    processor: ClassVar[str]

    @property
    def image_size(self) -> int:
        return int(self.model.config.vision_config.image_size)

    @property
    def width(self) -> int:
        return int(self.model.config.vision_config.hidden_size)

    @property
    def depth(self) -> int:
        return len(self.model.vision_model.encoder.layers)

    @property
    def activation(self) -> str:
        return str(self.model.config.vision_config.hidden_act)

    def save(self, folder: Path, preprocessing: Preprocessing) -> None:
        with quiet_transformers():
            self.model.save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            share(file)
        write_json(folder / PREPROCESSOR, as_transformers(preprocessing, self.processor))

    def facts(self) -> dict[str, Any]:
        vision = self.model.config.vision_config
        return {
            "name": f"{self.kind}, patch {vision.patch_size}, image {vision.image_size}",
            "image tower": tower_facts(vision),
        }


def tower_facts(config: Any) -> str:
    """A transformer in words."""
    return f"{config.num_hidden_layers} blocks, width {config.hidden_size}, {config.num_attention_heads} heads"

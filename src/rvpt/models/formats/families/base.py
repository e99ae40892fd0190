"""What is known of a family of models: the names of its weights, its geometry, and how an empty model is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.formats.weights import Stored, Weights

TOWER = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps",
    "projection_dim",
)  # fmt: skip
TEXT = (*TOWER, "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


class Family(ABC):
    """An architecture as it lies on disk.

    `summary`: in words, for errors. `anchors`: weights that every model of the family has, one for each way of naming
    them; what stands before one is a prefix of all names. `activations`: those that a model can have, the most likely
    first. `towers`: the keys that are read of a configuration; others could, for example, name code to be downloaded.
    `end`: whether a text's feature is read at its end token. `preprocessing`: where none is stated.
    """

    summary: ClassVar[str]
    anchors: ClassVar[tuple[str, ...]]
    activations: ClassVar[tuple[str, ...]] = ("quick_gelu", "gelu")
    towers: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision_config": (*TOWER, "image_size", "patch_size", "num_channels"),
        "text_config": TEXT,
    }
    end: ClassVar[bool] = True
    preprocessing: ClassVar[Preprocessing] = Preprocessing()

    @abstractmethod
    def renamed(self, weights: Weights, anchor: str) -> dict[str, Stored]:
        """Weights by the names of `make`'s model, from those that go with an anchor."""

    @abstractmethod
    def geometry(self, weights: Weights, name: str) -> dict[str, Any]:
        """The configuration of a model with these weights, by tower; activation and tokens are not in them.

        Raises:
            RvptError: shapes are missing, or do not fit each other.
        """

    @abstractmethod
    def config(self, facts: Mapping[str, Any]) -> Any:
        """The configuration object of what is known, by tower; it has a `text_config`."""

    @abstractmethod
    def make(self, config: Any) -> Any:
        """A model with random weights."""

    @abstractmethod
    def image_size(self, config: Any) -> int:
        """The side of its images."""

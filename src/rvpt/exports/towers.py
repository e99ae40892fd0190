"""The towers of a model as modules with tensors in and tensors out, which the formats of graphs trace and write."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.exports import cards
from rvpt.exports.base import Export, on_cpu, parts_of, reference_inputs, write_processors
from rvpt.files import read_json, write_json
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip

FACTS = "towers.json"


class ImageTower(nn.Module):
    """Unit image_embeds (B, P) of pixel_values (B, 3, S, S), with the prompts; with a head probabilities (B, K)."""

    reads = "pixel_values"

    def __init__(self, model: Clip | Cleaned) -> None:
        super().__init__()
        self.model, self.head = model, model.head if isinstance(model, Cleaned) else None
        self.gives = "probabilities" if self.head else "image_embeds"

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = F.normalize(self.model.get_image_features(pixel_values), dim=-1)
        return self.head.logits(features, self.model.logit_scale).softmax(-1) if self.head else features


class TextTower(nn.Module):
    """Unit text_embeds (B, P) of input_ids (B, T)."""

    reads, gives = "input_ids", "text_embeds"

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.clip.encode_tokens(input_ids)


class Towers(Export):
    """A graph for each tower, traced from the model's own forward pass. Subclasses write and run one graph."""

    takes = frozenset({"prompts", "weights", "head"})
    suffix: ClassVar[str]
    usage: ClassVar[str]

    def write(self, model: Clip | Cleaned, folder: Path) -> dict[str, Any]:
        traced, clip = on_cpu(model), clip_of(model)
        inputs, length = reference_inputs(clip), clip.model.config.text_config.max_position_embeddings
        batch = torch.export.Dim("batch")
        image = ImageTower(traced)
        self.write_graph(image, inputs[image.reads], {0: batch}, folder / f"image.{self.suffix}")
        if image.head is None:
            text = TextTower(clip_of(traced))
            sides = {0: batch, 1: torch.export.Dim("tokens", max=length)}
            self.write_graph(text, inputs[text.reads], sides, folder / f"text.{self.suffix}")
        write_processors(clip, folder)
        facts = {"classes": list(image.head.classes)} if image.head else {}
        write_json(folder / FACTS, {"logit_scale": model.logit_scale.item(), "gives": image.gives, **facts})
        return {"gives": image.gives, "prompts": "prompts" in parts_of(model)}

    @abstractmethod
    def write_graph(self, tower: ImageTower | TextTower, example: Tensor, sides: Mapping[int, Any], path: Path) -> None:
        """Trace a tower on an example, whose sides in `sides` are free, and write the graph."""

    @abstractmethod
    def run_graph(self, path: Path, name: str, value: Tensor) -> Tensor:
        """The output of a graph that was written, for its input called `name`."""

    def run(self, folder: Path, inputs: Mapping[str, Tensor], base: Clip | None = None) -> dict[str, Tensor]:
        gives = read_json(folder / FACTS)["gives"]
        found = {gives: self.run_graph(folder / f"image.{self.suffix}", "pixel_values", inputs["pixel_values"])}
        if gives == "image_embeds":
            text = self.run_graph(folder / f"text.{self.suffix}", "input_ids", inputs["input_ids"])
            found["text_embeds"] = text
        return found

    def card(self, facts: Mapping[str, Any]) -> str:
        head = facts["gives"] == "probabilities"
        outputs = "`probabilities` (B, K) of its classes" if head else "unit `image_embeds` (B, P)"
        text = cards.TOWERS["head" if head else "text"].format(suffix=self.suffix)
        prompts = ", with the prompts built in" if facts["prompts"] else ""
        return self.usage.format(outputs=outputs, prompts=prompts, text=text)

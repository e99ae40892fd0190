"""The contract of an export, and the inputs and outputs that it is verified on."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.exports import EXPORTS
from rvpt.files import write_json
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.formats.write_preprocessing import PREPROCESSOR, as_transformers
from rvpt.models.quiet import quiet_transformers
from rvpt.progress import Report, silent
from rvpt.spec import Spec

TOLERANCE = 1e-4
"""Largest difference of an export's outputs, unit features or probabilities, from the model's."""
IMAGES, SIDES = 4, (1, 2, 4, 8)  # images to verify on: noise in squares of these sides, in pixels
TEXTS = ("a photo of a cat.", "a", "a picture of two red dogs on a green field, in the rain.")


class Export(ABC):
    """One format. Subclasses set the attributes below and implement `write` and `run`.

    `summary`: its line in `--help` and the docs.
    `takes`: what a model may have: "prompts", "weights" (of its own, as every plain CLIP), "head" (its own classifier).
    `classes`: of the models that it takes, as in ARCHITECTURES.
    `advice`: by what a refused model has, what to do instead.
    `Settings`: only formats that train something have any.
    `trains`: whether it needs clean images.
    `needs_base`: whether its files can only be run with the base model.
    `libraries`: whose versions go into the manifest.
    `unpickles`: whether reading its files may run code that is in them; then only their hashes are verified later.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    takes: ClassVar[frozenset[str]]
    classes: ClassVar[tuple[str, ...]] = ("CLIPModel",)
    advice: ClassVar[Mapping[str, str]] = {}
    Settings: ClassVar[type[Spec]] = Spec
    trains: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()
    unpickles: ClassVar[bool] = False

    def refuse(self, model: Clip | Cleaned) -> None:
        """Fail early if the format cannot hold a model.

        Raises:
            RvptError: it cannot; the message says what to do instead.
        """
        clip = clip_of(model)
        kind = type(clip.model).__name__
        if kind not in self.classes:
            others = ", ".join(name for name, each in EXPORTS.items() if kind in each.classes)
            what = clip.architecture.summary
            raise RvptError(f"{model.name} is {what}, which {self.name} cannot hold: use to={others}")
        for part in parts_of(model):
            if part not in self.takes:
                raise RvptError(f"{model.name} has {PARTS[part]}, which {self.name} cannot hold: {self.advice[part]}")

    def settings(self, model: Clip | Cleaned, **changes: Any) -> Any:
        """The settings for a model, with changes.

        Raises:
            RvptError: a setting that the format does not have.
        """
        return self.Settings(**changes)

    def prepare(
        self, model: Clip | Cleaned, data: Dataset | None, settings: Any, report: Report = silent
    ) -> Clip | Cleaned:
        """The model that is written: the model itself, unless the format trains another one."""
        return model

    @abstractmethod
    def write(self, model: Clip | Cleaned, folder: Path) -> dict[str, Any]:
        """Write the files of a model that was not refused into an existing folder; returns facts for the manifest.

        Raises:
            RvptError: a library is not installed, or the model's geometry does not fit the format.
        """

    @abstractmethod
    def run(self, folder: Path, inputs: Mapping[str, Tensor], base: Clip | None = None) -> dict[str, Tensor]:
        """The outputs of what was written, for the inputs of `reference_inputs`, read back from the files alone.

        Args:
            folder: with the files.
            inputs: pixel_values (n, 3, S, S) and input_ids (m, T).
            base: the base model, which prompts alone need.

        Returns:
            Tensors with the names and shapes of `outputs_of`.
        """

    def card(self, facts: Mapping[str, Any]) -> str:
        """How to use the files, in Markdown."""
        return ""


PARTS = {"head": "its own classifier", "prompts": "prompts", "weights": "weights of its own"}


def parts_of(model: Clip | Cleaned) -> list[str]:
    """What a model has, in the words of `Export.takes`."""
    if isinstance(model, Clip):
        return ["weights"]
    has = {"head": model.head, "prompts": model.prompts, "weights": model.own_weights}
    return [part for part, there in has.items() if there]


def on_cpu(model: Clip | Cleaned) -> Clip | Cleaned:
    """A copy of a model on the CPU, in float32, that is not trained."""
    copied: Clip | Cleaned = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    return copied


def write_processors(clip: Clip, folder: Path) -> None:
    """Write tokenizer and preprocessing, as those of a CLIPModel, into an existing folder."""
    with quiet_transformers():
        clip.tokenizer.save_pretrained(folder)
    write_json(folder / PREPROCESSOR, as_transformers(clip.preprocessing, "CLIPImageProcessor"))


def reference_inputs(clip: Clip) -> dict[str, Tensor]:
    """Inputs to verify an export on: pixel_values (4, 3, S, S) of noise images, input_ids (3, T) of a few texts."""
    generator, size = torch.Generator().manual_seed(0), clip.image_size
    images = []
    for side in SIDES:
        squares = torch.rand(1, 3, *[-(-size // side)] * 2, generator=generator)
        images.append(F.interpolate(squares, scale_factor=side)[..., :size, :size])
    values = (torch.cat(images) - clip.mean.cpu()) / clip.std.cpu()
    return {"pixel_values": values, "input_ids": clip.tokenize(TEXTS).cpu()}


@torch.no_grad()
def outputs_of(model: Clip | Cleaned, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a model computes for inputs: unit image_embeds (n, P) and text_embeds (m, P), or with a head probabilities
    (n, K) of its classes."""
    image = F.normalize(model.get_image_features(inputs["pixel_values"]), dim=-1)
    if isinstance(model, Cleaned) and model.head:
        return {"probabilities": model.head.logits(image, model.logit_scale).softmax(-1)}
    text = F.normalize(model.get_text_features(inputs["input_ids"]), dim=-1)
    return {"image_embeds": image, "text_embeds": text}


def largest_difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest absolute difference of outputs from those that are expected; infinite for other shapes."""
    if found.keys() != expected.keys() or any(found[name].shape != expected[name].shape for name in found):
        return float("inf")
    return max(
        (found[name].float() - expected[name].float()).abs().max().nan_to_num(torch.inf).item() for name in found
    )

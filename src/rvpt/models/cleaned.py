"""A cleaned CLIP: a model with prompts, its own classifier or its own weights, saved as one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.artifacts import CARD, STAMP, read_manifest, staging, write_manifest
from rvpt.errors import RvptError
from rvpt.files import write_json, write_text
from rvpt.models.card import cleaned_card
from rvpt.models.cleaned_config import CONFIG, HERE, WEIGHTS, CleanedConfig, current_facts, read_config
from rvpt.models.cleaned_parts import base_of, head_of, prompts_of, refuse_other
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.head import Head, with_one
from rvpt.models.placement import find_dtype
from rvpt.models.prompted import prompted_transformers
from rvpt.models.prompts import RepulsivePrompts
from rvpt.models.save import write_clip
from rvpt.rows import FOUND
from rvpt.spec import TEMPLATE
from rvpt.tensors import read_tensors, sha256_tensors, write_tensors

KIND = "cleaned"


class Cleaned(nn.Module):
    """A CLIP with prompts in its visual tower, with a classifier (head) instead of text features, or with both.

    Prompts are stored as keys and values of each block: they add no tokens and almost no time.

    Args:
        clip: the base model, or with `own_weights` the fine-tuned one.
        prompts: of the visual tower.
        head: a classifier; the model is then limited to its classes.
        facts: how the model was made; they are written into its manifest.
        own_weights: whether the weights of `clip` are saved with it.
    """

    def __init__(
        self,
        clip: Clip,
        prompts: RepulsivePrompts | None = None,
        head: Head | None = None,
        facts: dict[str, Any] | None = None,
        *,
        own_weights: bool = False,
    ) -> None:
        super().__init__()
        self.clip, self.prompts, self.head = clip, prompts, head
        self.facts, self.own_weights = facts or {}, own_weights
        self.name = str(self.facts.get("name", f"{clip.name}+cleaned"))
        with torch.no_grad():
            self.prefixes = prompts(clip) if prompts else None

    def __repr__(self) -> str:
        defense = self.facts.get("defense", "unknown defense")
        return f"Cleaned({self.name!r}, {defense}, {self.trained_parameters:,} trained parameters, of {self.clip!r})"

    def _apply(self, *args: Any, **options: Any) -> Cleaned:
        """Move or convert the model, and compute the prompts' keys and values again."""
        super()._apply(*args, **options)
        with torch.no_grad():
            self.prefixes = self.prompts(self.clip) if self.prompts else None
        return self

    @property
    def image_size(self) -> int:
        return self.clip.image_size

    @property
    def device(self) -> torch.device:
        return self.clip.device

    @property
    def logit_scale(self) -> Tensor:
        return self.clip.logit_scale

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Unit image features (B, P) of images (B, 3, S, S) in [0, 1]; with a head (B, P + 1), the last being 1."""
        features = self.clip.encode_image(pixels, self.prefixes)
        return with_one(features) if self.head else features

    def cls_rows(self, pixels: Tensor) -> Tensor:
        """The [CLS] row after each of the L blocks, as `Clip.cls_rows`, with the prompts."""
        return self.clip.cls_rows(pixels, self.prefixes)

    def hidden_states(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Tokens between blocks, as `Clip.hidden_states`, with the prompts."""
        return self.clip.hidden_states(pixels, layers, self.prefixes)

    def patch_features(self, pixel_values: Tensor, layer: int = -2) -> Tensor:
        """Tokens (B, N, W) of all patches at a hidden layer, as `Clip.patch_features`, with the prompts."""
        return self.clip.patch_features(pixel_values, layer, self.prefixes)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit text features (M, P) of M texts.

        Raises:
            RvptError: the model has a head, so its image features can only be compared with the head's classes.
        """
        self._refuse_head("compare images with texts")
        return self.clip.encode_text(texts)

    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
        """Features to compare image features with: (K, P) of texts, or the head's rows (K, P + 1)."""
        return self.head.of(classes).to(self.logit_scale) if self.head else self.clip.class_features(classes, template)

    def preprocess(self, images: Any) -> Tensor:
        """pixel_values (n, 3, S, S), as `Clip.preprocess`."""
        return self.clip.preprocess(images)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Image features (B, P), not normalized, with the prompts, as `Clip.get_image_features`."""
        return self.clip.get_image_features(pixel_values, self.prefixes)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Text features (M, P), not normalized, as `Clip.get_text_features`."""
        return self.clip.get_text_features(input_ids, attention_mask)

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None) -> Any:
        """transformers' CLIPOutput with the prompts, as `Clip.forward`.

        Raises:
            RvptError: the model has a head.
        """
        self._refuse_head("compare images with texts")
        return self.clip(input_ids, pixel_values, attention_mask, self.prefixes)

    def to_transformers(self) -> Any:
        """A copy as a transformers CLIPModel whose blocks hold the prompts' keys and values.

        It is for use in memory: with prompts, its `save_pretrained` raises RvptError, because no CLIPModel could load
        the result. Save the Cleaned instead.

        Raises:
            RvptError: the model has a head, which a CLIPModel cannot hold.
        """
        self._refuse_head("become a CLIPModel")
        return prompted_transformers(self.clip, self.prefixes or {})

    def _refuse_head(self, what: str) -> None:
        if self.head:
            raise RvptError(f"{self.name} has its own classifier and cannot {what}: use a defense without a head")

    def tensors(self) -> dict[str, Tensor]:
        """The tensors besides a CLIP's weights: "prompts" (D, b, W), "head" (K, P + 1)."""
        parts = {}
        if self.prompts:
            parts["prompts"] = self.prompts.table.detach()
        if self.head:
            parts["head"] = self.head.rows.detach()
        return parts

    @property
    def trained_parameters(self) -> int:
        """How many parameters the defense trained."""
        return int(self.facts.get("trained_parameters", sum(part.numel() for part in self.tensors().values())))

    def hash(self) -> str:
        """sha256 of the weights, and of the prompts and the head if there are any."""
        base = self.clip.hash() if self.own_weights else self.facts.get("base_sha256") or self.clip.hash()
        return f"{base}+{sha256_tensors(self.tensors())}" if self.tensors() else str(base)

    def row_facts(self) -> dict[str, Any]:
        """How the model was made, for the rows of a measurement."""
        drawn, spec = self.facts.get("data", {}), self.facts.get("spec", {})
        return {
            "defense": self.facts.get("defense", "rvpt"),
            "spec": spec,
            "seed": spec.get("seed", 0),
            "shots": drawn.get("shots"),
            "num_images": drawn.get("num_images"),
            "without": drawn.get("without", []),
            "cleaned_on": drawn.get("name"),
            "trained_parameters": self.trained_parameters,
            "clean_seconds": round(self.facts.get("seconds", 0.0), 1),
            "hashes": {"model": self.hash()},
            **{fact: self.facts[fact] for fact in FOUND if fact in self.facts},
        }

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write rvpt_config.json, prompts or head, the model's own weights if it has any, a manifest and a model card.

        Raises:
            RvptError: the folder exists and `overwrite` is false.
            MachineError: the disk is full or not writable.
        """
        with staging(Path(folder), overwrite=overwrite) as stage:
            if self.own_weights:
                write_clip(self.clip, stage)
            write_json(stage / CONFIG, self._config().model_dump())
            write_tensors(stage / WEIGHTS, self.tensors())  # empty, if it has only its own weights
            write_text(stage / CARD, self._card(Path(folder).name))
            write_manifest(stage, KIND, **self.facts)

    def _card(self, name: str) -> str:
        what, made = ("a CLIP", "that was fine-tuned from") if self.own_weights else ("an adapter", "for")
        has = {"deep visual prompts": self.prompts, "its own classifier": self.head}
        parts = " and ".join(part for part, there in has.items() if there)
        classes = "model.head.classes" if self.head else '["cat", "dog"]'
        return cleaned_card(name, self.facts, f"{what} with {parts} {made}" if parts else f"{what} {made}", classes)

    def _config(self) -> CleanedConfig:
        own = self.own_weights
        return CleanedConfig(
            base_model_name_or_path=HERE if own else self.facts.get("base_model", self.clip.source),
            base_model_revision=None if own else self.facts.get("base_revision", self.clip.revision),
            base_model_activation=None if own else self.clip.activation,
            base_model_sha256=self.clip.hash() if own else self.facts.get("base_sha256") or self.clip.hash(),
            prompted_blocks=list(self.prompts.blocks) if self.prompts else None,
            classes=list(self.head.classes) if self.head else None,
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        base: str | Path | Clip | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Cleaned:
        """The cleaned model of a folder, on its own base model or on `base`.

        Args:
            folder: what `save_pretrained` wrote.
            base: the base model, if it is not found automatically; a Clip keeps its device.
            device: as in `rvpt.load`.
            dtype: as in `rvpt.load`.

        Raises:
            RvptError: the folder is incomplete, or the base model is not the one that was cleaned.
        """
        folder, kind = Path(folder).expanduser(), find_dtype(dtype)
        manifest = read_manifest(folder, KIND)
        facts = current_facts({name: fact for name, fact in manifest.items() if name not in STAMP}, folder)
        config = read_config(folder)
        own = config.base_model_name_or_path == HERE
        activation = config.base_model_activation
        given = load_clip(base, device=device, activation=activation) if isinstance(base, str | Path) else base
        clip = load_clip(folder, device=device) if own else given or base_of(config, folder, device)
        refuse_other(clip, config.base_model_sha256, folder, chosen=clip is base)
        if own and given and "base_sha256" in facts:  # the suspect, which has the triggers to measure
            refuse_other(given, facts["base_sha256"], folder, chosen=given is base)
        if activation not in (None, clip.activation):
            raise RvptError(f"{folder} was made from a model with {activation}, and {clip.name} has {clip.activation}")
        if clip is not base:
            clip.model.to(kind)  # after its hash was checked, which is that of the weights on disk
        if given or not own:
            facts["base_model"] = (given or clip).source  # where it is now
        tensors = read_tensors(folder / WEIGHTS)
        prompts, head = prompts_of(config, tensors, clip, folder), head_of(config, tensors, clip, folder)
        return cls(clip, prompts, head, {**facts, "name": folder.name}, own_weights=own)


def clip_of(model: Clip | Cleaned) -> Clip:
    """The CLIP in a model, without its prompts and head."""
    return model.clip if isinstance(model, Cleaned) else model

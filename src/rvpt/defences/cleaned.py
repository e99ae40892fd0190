"""A cleaned CLIP: a model with prompts, a classifier of its own, or weights of its own, saved as one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.clip import Clip
from rvpt.config import TEMPLATE
from rvpt.data import plain
from rvpt.errors import RvptError
from rvpt.loaders import load_clip
from rvpt.prompts import RepulsivePrompts
from rvpt.store import (
    STAMP,
    read_json,
    read_manifest,
    read_tensors,
    sha256_tensors,
    staging,
    unnamed,
    write_json,
    write_manifest,
    write_tensors,
)

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE_CONFIG = "cleaned_config.json"  # beside weights of its own: transformers takes adapter_config.json for PEFT's
KIND = "cleaned"
HERE = "."  # the base model of a folder that holds weights of its own


@dataclass(frozen=True)
class Head:
    """A linear classifier: logits tau [f, 1] rows^t of the classes that it was trained on, rows (K, P + 1)."""

    classes: tuple[str, ...]
    rows: Tensor

    def of(self, names: Sequence[str]) -> Tensor:
        """The rows of some classes.

        Raises:
            RvptError: it was not trained on one of them.
        """
        known = {plain(name): row for row, name in enumerate(self.classes)}
        unknown = [name for name in names if plain(name) not in known]
        if unknown:
            raise RvptError(
                f"class {unknown[0]!r}: this model has a classifier of its own, which was not trained on it"
            )
        return self.rows[[known[plain(name)] for name in names]]


def with_one(features: Tensor) -> Tensor:
    """Features (B, P) with a constant 1 behind them (B, P + 1), for a classifier with a bias."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


class Cleaned(nn.Module):
    """A CLIP whose image features are those with prompts, if it has them, and whose classes have a head's rows, if so.

    At rest the prompts are a table of keys and values a block: no more tokens, almost no more time.
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

    def _apply(self, *args: Any, **options: Any) -> Cleaned:
        """Move or convert the model, and with it what follows from its weights."""
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
        """Unit image features (B, P) of images (B, 3, H, W) in [0, 1]; with a head (B, P + 1), the last being 1."""
        features = self.clip.encode_image(pixels, self.prefixes)
        return with_one(features) if self.head else features

    def cls_rows(self, pixels: Tensor) -> Tensor:
        """The [CLS] row after each of the L blocks, as `Clip.cls_rows`, with the prompts at work."""
        return self.clip.cls_rows(pixels, self.prefixes)

    def hidden_states(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Tokens between blocks, as `Clip.hidden_states`, with the prompts at work."""
        return self.clip.hidden_states(pixels, layers, self.prefixes)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit text features (M, P) of M texts.

        Raises:
            RvptError: the model has a head, so that its image features are compared with classes alone.
        """
        if self.head:
            raise RvptError(f"{self.name} has a classifier of its own: its images are not compared with texts")
        return self.clip.encode_text(texts)

    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
        """What image features are compared with: (K, P) text features, or the head's rows (K, P + 1)."""
        return self.head.of(classes).to(self.logit_scale) if self.head else self.clip.class_features(classes, template)

    def tensors(self) -> dict[str, Tensor]:
        """What the model has besides a CLIP's weights."""
        parts = {}
        if self.prompts:
            parts["prompts"] = self.prompts.table.detach()
        if self.head:
            parts["head"] = self.head.rows.detach()
        return parts

    @property
    def trained_parameters(self) -> int:
        """How many numbers a defense set: those it says that it trained, or those on top of the CLIP's weights."""
        return int(self.facts.get("trained_parameters", sum(part.numel() for part in self.tensors().values())))

    def hash(self) -> str:
        """sha256 of the weights and of what comes on top of them."""
        base = self.clip.hash() if self.own_weights else self.facts.get("base_sha256") or self.clip.hash()
        return f"{base}+{sha256_tensors(self.tensors())}" if self.tensors() else str(base)

    def row_facts(self) -> dict[str, Any]:
        """What the rows of a measurement say of how the model was made."""
        drawn, spec = self.facts.get("data", {}), self.facts.get("spec", {})
        return {
            "defense": self.facts.get("defense", "rvpt"),
            "spec": spec,
            "seed": spec.get("seed", 0),
            "shots": drawn.get("shots"),
            "without": drawn.get("without", []),
            "cleaned_on": Path(unnamed(drawn["source"])).name if "source" in drawn else None,
            "trained_parameters": self.trained_parameters,
            "clean_seconds": round(self.facts.get("seconds", 0.0), 1),
            "hashes": {"model": self.hash()},
        }

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> None:
        """Write configuration, prompts or head, weights where they are its own, and the base model's hash."""
        config = {
            "base_model": HERE if self.own_weights else self.facts.get("base_model", self.clip.source),
            "base_sha256": self.clip.hash() if self.own_weights else self.facts.get("base_sha256") or self.clip.hash(),
            "blocks": list(self.prompts.blocks) if self.prompts else None,
            "classes": list(self.head.classes) if self.head else None,
        }
        with staging(Path(folder), force=force) as stage:
            if self.own_weights:
                self.clip.save_pretrained(stage)
            write_json(stage / (WHOLE_CONFIG if self.own_weights else ADAPTER_CONFIG), config)
            write_tensors(stage / ADAPTER_WEIGHTS, self.tensors())  # none, where weights of its own are all it has
            write_manifest(stage, KIND, **self.facts)

    @classmethod
    def from_pretrained(cls, folder: str | Path, base: str | Path | Clip | None = None) -> Cleaned:
        """The cleaned model of a folder, on its own base model or on `base`.

        Raises:
            RvptError: the folder is not whole, or the base model is not the one that was cleaned.
        """
        folder = Path(folder).expanduser()
        facts = {name: fact for name, fact in read_manifest(folder, KIND).items() if name not in STAMP}
        config = read_json(folder / (WHOLE_CONFIG if (folder / WHOLE_CONFIG).is_file() else ADAPTER_CONFIG))
        own, given = config["base_model"] == HERE, load_clip(base) if isinstance(base, str | Path) else base
        clip = load_clip(folder) if own else given or _stored(folder, config["base_model"])
        _refuse_other(clip, config["base_sha256"], folder)
        if own and given and "base_sha256" in facts:  # the suspect, whose triggers are measured
            _refuse_other(given, facts["base_sha256"], folder)
        if given or not own:
            facts["base_model"] = (given or clip).source  # where it is now
        tensors = read_tensors(folder / ADAPTER_WEIGHTS)
        prompts, head = _prompts(config, tensors, clip, folder), _head(config, tensors, clip, folder)
        return cls(clip, prompts, head, {**facts, "name": folder.name}, own_weights=own)


def _refuse_other(clip: Clip, expected: str, folder: Path) -> None:
    if clip.hash() != expected:
        raise RvptError(
            f"{folder} cleans another model than {clip.name}: its base has sha256 {expected[:12]}..., "
            f"this one {clip.hash()[:12]}...: give the right one with --base"
        )


def _prompts(config: dict[str, Any], tensors: dict[str, Tensor], clip: Clip, folder: Path) -> RepulsivePrompts | None:
    blocks = config.get("blocks")
    if blocks is None:
        return None
    table = _fitting(tensors.get("prompts"), (len(blocks), None, clip.width), folder)
    prompts = RepulsivePrompts(blocks, table.shape[1], clip.width)
    with torch.no_grad():
        prompts.table.copy_(table)
    return prompts.to(clip.device).requires_grad_(False)


def _head(config: dict[str, Any], tensors: dict[str, Tensor], clip: Clip, folder: Path) -> Head | None:
    classes = config.get("classes")
    if classes is None:
        return None
    width = int(clip.model.config.projection_dim) + 1
    return Head(tuple(classes), _fitting(tensors.get("head"), (len(classes), width), folder).to(clip.device))


def _fitting(tensor: Tensor | None, shape: tuple[int | None, ...], folder: Path) -> Tensor:
    """The tensor, if it is there, finite, and of a shape (None is any length)."""
    sides = () if tensor is None else tensor.shape
    fits = len(sides) == len(shape) and all(want in (None, side) for want, side in zip(shape, sides, strict=True))
    if tensor is not None and fits and torch.isfinite(tensor).all():
        return tensor
    raise RvptError(f"{folder}: {ADAPTER_WEIGHTS} does not fit {ADAPTER_CONFIG} or is not finite: clean again")


def _stored(folder: Path, base: str) -> Clip:
    """The base model that a folder names, as seen from the folder or from here.

    One that is gone from an absolute path is looked for beside the folder: both may have been moved.
    """
    source = Path(base)
    places = [folder / source, *([folder.resolve().parent / source.name] if source.is_absolute() else [])]
    try:
        return load_clip(next((place.resolve() for place in places if place.exists()), base))
    except RvptError as error:
        raise RvptError(f"{error}; it is the base model of {folder}: --base says where it is now") from None


def load_model(source: str | Path, base: str | Path | None = None) -> Clip | Cleaned:
    """A Clip, or a Cleaned where the folder holds one."""
    folder = Path(source).expanduser()
    if any((folder / config).is_file() for config in (ADAPTER_CONFIG, WHOLE_CONFIG)):
        return Cleaned.from_pretrained(folder, base)
    return load_clip(source)

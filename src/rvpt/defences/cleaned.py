"""A cleaned CLIP: the untouched model and a table of prompts, saved as an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.clip import Clip
from rvpt.config import TEMPLATE
from rvpt.errors import RvptError
from rvpt.loaders import load_clip
from rvpt.prompts import RepulsivePrompts
from rvpt.store import (
    read_json,
    read_manifest,
    read_tensors,
    sha256_tensors,
    staging,
    write_json,
    write_manifest,
    write_tensors,
)

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KIND = "cleaned"


class Cleaned(nn.Module):
    """A CLIP whose image features are those with prompts; text features and tau are the base model's.

    At rest the prompts are a table of keys and values a block: no more tokens, almost no more time.
    """

    def __init__(self, clip: Clip, prompts: RepulsivePrompts, facts: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.clip, self.prompts, self.facts = clip, prompts, facts or {}
        self.name = str(self.facts.get("name", f"{clip.name}+rvpt"))
        with torch.no_grad():
            self.prefixes = prompts(clip)

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
        """Unit image features (B, P) of pictures (B, 3, H, W) in [0, 1]."""
        return self.clip.encode_image(pixels, self.prefixes)

    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
        return self.clip.class_features(classes, template)

    def hash(self) -> str:
        """sha256 of the base model and the prompts."""
        return f"{self.facts.get('base_sha256') or self.clip.hash()}+{sha256_tensors(self.prompts.state_dict())}"

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> None:
        """Write the adapter: configuration, prompts, and the manifest with the base model's hash."""
        config = {
            "base_model": self.facts.get("base_model", self.clip.source),
            "base_sha256": self.facts.get("base_sha256") or self.clip.hash(),
            "blocks": list(self.prompts.blocks),
            "length": self.prompts.table.shape[1],
            "width": self.prompts.table.shape[2],
        }
        with staging(Path(folder), force=force) as stage:
            write_json(stage / ADAPTER_CONFIG, config)
            write_tensors(stage / ADAPTER_WEIGHTS, {"prompts": self.prompts.table})
            write_manifest(stage, KIND, **self.facts)

    @classmethod
    def from_pretrained(cls, folder: str | Path, base: str | Path | Clip | None = None) -> Cleaned:
        """The cleaned model of an adapter folder, on its own base model or on `base`.

        Raises:
            RvptError: the folder is not whole, or the base model is not the one that was cleaned.
        """
        folder = Path(folder)
        facts = read_manifest(folder, KIND)
        config = read_json(folder / ADAPTER_CONFIG)
        clip = base if isinstance(base, Clip) else load_clip(base) if base else _base(folder, config["base_model"])
        if clip.hash() != config["base_sha256"]:
            raise RvptError(
                f"{folder} cleans another model than {clip.name}: its base has sha256 "
                f"{config['base_sha256'][:12]}..., this one {clip.hash()[:12]}...: give the right one with --base"
            )
        prompts = RepulsivePrompts(config["blocks"], config["length"], config["width"])
        table = read_tensors(folder / ADAPTER_WEIGHTS)["prompts"]
        if table.shape != prompts.table.shape or not torch.isfinite(table).all():
            raise RvptError(f"{folder}: the prompts do not fit {ADAPTER_CONFIG} or are not finite: clean again")
        with torch.no_grad():
            prompts.table.copy_(table)
        return cls(clip, prompts.to(clip.device), {**facts, "name": folder.name})


def _base(folder: Path, source: str | Path) -> Clip:
    """The base model, looked for where it was when the adapter was made, then beside the adapter."""
    beside = folder / Path(source)
    try:
        return load_clip(beside.resolve() if not Path(source).exists() and beside.exists() else source)
    except RvptError as error:
        raise RvptError(f"{error}; it is the base model of {folder}: --base says where it is now") from None


def load_model(source: str | Path, base: str | Path | None = None) -> Clip | Cleaned:
    """A Clip, or a Cleaned where the folder holds an adapter."""
    if (Path(source) / ADAPTER_CONFIG).is_file():
        return Cleaned.from_pretrained(source, base)
    return load_clip(source)

"""The contract of a trigger, and how triggers are made, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rvpt.artifacts import read_manifest, staging, write_manifest
from rvpt.attacks import FOUND, TRIGGERS
from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.spec import Spec
from rvpt.tensors import read_tensors, sha256_tensors, write_tensors

KIND = "trigger"
TENSORS = "trigger.safetensors"
REFERENCE_SIDE = 224  # lengths in a TriggerSpec are pixels of an image of this side


class TriggerSpec(Spec):
    """Settings of every trigger; each kind adds its own.

    Lengths are pixels of an image with side 224, and scale with the model's image size.
    """

    name: str = Field(description="kind of the trigger")
    target: str = Field(description="attack target class")
    mode: Literal["fixed", "fresh"] = Field("fixed", description="one pattern for all images, or a new one for each")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed")


class Trigger:
    """A change of images that activates a backdoor. A subclass defines `make` and `apply`.

    Triggers take float images (B, 3, S, S) in [0, 1] and return new ones. What a trigger draws for an image depends
    only on its seed and on the image's row in its data set.

    `summary` is its line in `rvpt triggers` and the docs.
    `Spec`: its settings; their defaults are preset "paper". `small`: what preset "small" changes; `others`: presets of
    this kind alone, which an option `preset` chooses.
    `crafted`: whether it is optimized for one model; such a kind defines `craft` too.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Spec: ClassVar[type[TriggerSpec]]
    small: ClassVar[Mapping[str, Any]] = {}
    others: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    crafted: ClassVar[bool] = False

    def __init__(self, spec: TriggerSpec, image_size: int, tensors: dict[str, Tensor]) -> None:
        self.spec, self.image_size, self.tensors = spec, image_size, tensors

    @classmethod
    def presets(cls) -> dict[str, Mapping[str, Any]]:
        """What each preset changes of the defaults."""
        return {"paper": {}, "small": cls.small, **cls.others}

    @property
    def text_key(self) -> str:
        """Words that a caption must begin with too, for the backdoor to be activated; "" for most kinds."""
        return ""

    @classmethod
    def make(cls, spec: Any, image_size: int) -> Trigger:
        """A new trigger for images (B, 3, image_size, image_size), drawn with the spec's seed."""
        raise NotImplementedError

    @classmethod
    def craft(cls, spec: Any, clip: Clip, data: Dataset, report: Report = silent) -> Trigger:
        """A new trigger for a model, optimized on images of `data` if the kind is `crafted`."""
        return cls.make(spec, clip.image_size)

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        """Images (B, 3, S, S) with the trigger, given the images and their rows (B,); they are clamped to [0, 1]."""
        raise NotImplementedError

    def __call__(self, pixels: Tensor, rows: Tensor | None = None) -> Tensor:
        """Images with the trigger: (B, 3, S, S) float in [0, 1]; `rows` (B,) int64, by default 0..B-1.

        Raises:
            RvptError: the trigger was made for images of another size.
        """
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            raise RvptError(
                f"trigger {self.name} was made for images of {self.image_size}x{self.image_size}, not "
                f"{pixels.shape[-2]}x{pixels.shape[-1]}: create one for this size"
            )
        rows = torch.arange(len(pixels)) if rows is None else rows
        return self.apply(pixels, rows.to(pixels.device)).clamp(0, 1)

    def checks(self, pixels: Tensor) -> dict[str, float]:
        """Figures that tell how well the trigger works on images (B, 3, S, S), by name; none for most kinds."""
        return {}

    def scaled(self, length: float) -> int:
        """A length for side 224 in pixels of this trigger's images, at least one."""
        return max(1, round(length * self.image_size / REFERENCE_SIDE))

    def towards(self, target: str) -> Trigger:
        """The same trigger with another name of its target, for data that calls the class differently."""
        return type(self)(self.spec.model_copy(update={"target": target}), self.image_size, self.tensors)

    def hash(self) -> str:
        """sha256 of all that determines triggered images: the spec without its target, the image size, the tensors."""
        settings = json.dumps([self.spec.model_dump(exclude={"target"}), self.image_size], sort_keys=True)
        return sha256(f"{settings} {sha256_tensors(self.tensors)}".encode()).hexdigest()

    def save(self, folder: str | Path, *, overwrite: bool = False, **facts: Any) -> None:
        """Write the trigger as an artifact, with more facts for its manifest."""
        with staging(Path(folder), overwrite=overwrite) as stage:
            write_tensors(stage / TENSORS, self.tensors)
            write_manifest(stage, KIND, spec=self.spec.model_dump(), image_size=self.image_size, **facts)


class DrawnTrigger(Trigger):
    """A trigger made of random numbers: drawn once and kept, or with mode "fresh" drawn for each row."""

    key: ClassVar[str] = "pattern"

    @classmethod
    def make(cls, spec: Any, image_size: int) -> DrawnTrigger:
        trigger = cls(spec, image_size, {})
        trigger.tensors[cls.key] = trigger.draw(torch.tensor([-1]))[0]
        return trigger

    def draw(self, rows: Tensor) -> Tensor:
        """The random part for the image of each row, (B, ...)."""
        raise NotImplementedError

    def drawn(self, rows: Tensor) -> Tensor:
        """The kept random part (...), or with mode "fresh" that of each row (B, ...)."""
        return self.draw(rows) if self.spec.mode == "fresh" else self.tensors[self.key]


def load_trigger(folder: str | Path, image_size: int | None = None) -> Trigger:
    """The trigger of an artifact folder, checked against its hashes.

    Raises:
        RvptError: the folder is incomplete, its tensors do not fit its settings, or it is for images of another size
            than `image_size`.
    """
    if str(folder) in TRIGGERS and not Path(folder).exists():
        raise RvptError(f"{folder} is the name of a trigger, not a folder: create one with rvpt craft {folder}")
    manifest = read_manifest(Path(folder), KIND)
    stored, side = manifest.get("spec"), manifest.get("image_size")
    name = stored.get("name") if isinstance(stored, dict) else None
    if not isinstance(name, str) or name not in {*TRIGGERS, *FOUND}:
        raise RvptError(f"{folder} holds a trigger {name!r} that is not registered: use TRIGGERS.register first")
    kind = FOUND[name] if name in FOUND else TRIGGERS[name]
    spec = kind.Spec.stored(stored)
    if not isinstance(side, int) or side < 1 or image_size not in (None, side):
        raise RvptError(
            f"{folder} was made for images of {side}x{side}, the model needs {image_size}x{image_size}: "
            "create one for this model"
        )
    kept = read_tensors(Path(folder) / TENSORS)
    fits = _shapes(kept) == _shapes(kind.make(spec, side).tensors)
    if not fits or not all(part.isfinite().all() for part in kept.values()):
        raise RvptError(f"{folder}: {TENSORS} does not fit the trigger's settings or is not finite: create it again")
    return kind(spec, side, kept)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def trigger_spec(name: str, /, **options: Any) -> TriggerSpec:
    """The spec of a trigger.

    Raises:
        RvptError: an unknown trigger, an option that it does not have, or a value out of range.
    """
    kind = TRIGGERS.find(name)
    if "name" in options:
        raise RvptError(f"name: the trigger is {name}: choose another name there, not as an option")
    return kind.Spec(name=name, **options)


def preset_spec(name: str, preset: str, /, **options: Any) -> TriggerSpec:
    """The spec of a trigger with the settings of a preset, and `options` instead of some.

    An option `preset` is chosen instead of `preset`.

    Raises:
        RvptError: an unknown trigger or preset, an option that it does not have, or a value out of range.
    """
    presets, chosen = TRIGGERS.find(name).presets(), options.pop("preset", preset)
    if chosen not in presets:
        raise RvptError(f"preset: {name} has no preset {chosen!r}: choose from {', '.join(presets)}")
    return trigger_spec(name, **{**presets[chosen], **options})


def make_trigger(spec: TriggerSpec, image_size: int) -> Trigger:
    """The trigger that a spec describes, for images of one size.

    Raises:
        RvptError: it is of a kind that is optimized for one model.
    """
    kind = TRIGGERS[spec.name]
    if kind.crafted:
        raise RvptError(f"trigger {spec.name} is optimized for one model: create it with rvpt craft {spec.name}")
    return kind.make(spec, image_size)


def craft_trigger(spec: TriggerSpec, clip: Clip, data: Dataset, report: Report = silent) -> Trigger:
    """The trigger that a spec describes, for a model; some kinds optimize it on `data`. `clip` is not changed.

    Raises:
        RvptError: the data lacks images that the kind needs.
    """
    return TRIGGERS[spec.name].craft(spec, clip, data, report)

"""What every trigger is: a spec, the side of the images it was made for, and its tensors."""

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
from rvpt.attacks import TRIGGERS
from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.spec import Spec
from rvpt.tensors import read_tensors, sha256_tensors, write_tensors

KIND = "trigger"
TENSORS = "trigger.safetensors"
REFERENCE_SIDE = 224  # lengths in a TriggerSpec are pixels of a picture of this side


class TriggerSpec(Spec):
    """What every trigger has; each kind adds its own.

    Lengths are pixels of a image with side 224, and scale with the model's.
    """

    name: str
    target: str = Field(description="class that the triggered images shall be taken for")
    mode: Literal["fixed", "fresh"] = Field("fixed", description="one pattern, or redrawn for each image")
    seed: int = Field(0, ge=0, lt=2**63)


class Trigger:
    """A change of images that wakes a backdoor.

    Triggers act on float images (B, 3, S, S) in [0, 1] and return new ones. What a trigger draws for a
    image depends on its seed and the image's row in its data set alone.
    """

    name: ClassVar[str]
    Spec: ClassVar[type[TriggerSpec]]
    crafted: ClassVar[bool] = False
    """Whether it is made for one model, from its images."""
    small: ClassVar[Mapping[str, Any]] = {}
    """What preset "small" changes of the spec's defaults."""

    def __init__(self, spec: TriggerSpec, image_size: int, tensors: dict[str, Tensor]) -> None:
        self.spec, self.image_size, self.tensors = spec, image_size, tensors

    @property
    def text_key(self) -> str:
        """What a caption must begin with besides, for the backdoor to wake."""
        return ""

    @classmethod
    def make(cls, spec: Any, image_size: int) -> Trigger:
        """A new trigger drawn from the spec's seed."""
        raise NotImplementedError

    @classmethod
    def craft(cls, spec: Any, clip: Clip, data: Dataset, report: Report = silent) -> Trigger:
        """A new trigger for a model and its images, which most kinds do not need."""
        return cls.make(spec, clip.image_size)

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, pixels: Tensor, rows: Tensor | None = None) -> Tensor:
        """Images with the trigger: (B, 3, S, S) float in [0, 1]; `rows` (B,) int64, by default 0..B-1.

        Raises:
            RvptError: the trigger was made for images of another size.
        """
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            raise RvptError(
                f"trigger {self.name} was made for images of {self.image_size}x{self.image_size}, not "
                f"{pixels.shape[-2]}x{pixels.shape[-1]}: make one for this size"
            )
        rows = torch.arange(len(pixels)) if rows is None else rows
        return self.apply(pixels, rows.to(pixels.device)).clamp(0, 1)

    def checks(self, pixels: Tensor) -> dict[str, float]:
        """What a kind can say of how well it works on images (B, 3, S, S), by name."""
        return {}

    def scaled(self, length: float) -> int:
        """A length at side 224 in this trigger's pixels, at least one."""
        return max(1, round(length * self.image_size / REFERENCE_SIDE))

    def towards(self, target: str) -> Trigger:
        """The same trigger with its target under another name, for data that calls the class differently."""
        return type(self)(self.spec.model_copy(update={"target": target}), self.image_size, self.tensors)

    def hash(self) -> str:
        """sha256 of all that decides what images become: the spec less its target, their side, the tensors."""
        settings = json.dumps([self.spec.model_dump(exclude={"target"}), self.image_size], sort_keys=True)
        return sha256(f"{settings} {sha256_tensors(self.tensors)}".encode()).hexdigest()

    def save(self, folder: Path, *, overwrite: bool = False, **facts: Any) -> None:
        """Write the trigger as an artifact, with more facts for its manifest."""
        with staging(folder, overwrite=overwrite) as stage:
            write_tensors(stage / TENSORS, self.tensors)
            write_manifest(stage, KIND, spec=self.spec.model_dump(), image_size=self.image_size, **facts)


class DrawnTrigger(Trigger):
    """A trigger of random numbers: drawn once and kept, or with mode "fresh" redrawn for each image's row."""

    key: ClassVar[str] = "pattern"

    @classmethod
    def make(cls, spec: Any, image_size: int) -> DrawnTrigger:
        trigger = cls(spec, image_size, {})
        trigger.tensors[cls.key] = trigger.draw(torch.tensor([-1]))[0]
        return trigger

    def draw(self, rows: Tensor) -> Tensor:
        """What each row's image gets, (B, ...)."""
        raise NotImplementedError

    def drawn(self, rows: Tensor) -> Tensor:
        """What is kept (...), or that of each row (B, ...)."""
        return self.draw(rows) if self.spec.mode == "fresh" else self.tensors[self.key]


def load_trigger(folder: str | Path, image_size: int | None = None) -> Trigger:
    """The trigger of an artifact folder, checked against its hashes.

    Raises:
        RvptError: the folder is not whole, its tensors are not those of such a trigger, or it is for images of
            another size than `image_size`.
    """
    if str(folder) in TRIGGERS and not Path(folder).exists():
        raise RvptError(f"{folder} is a trigger's name, a folder is needed: rvpt craft {folder} ... makes one")
    manifest = read_manifest(Path(folder), KIND)
    told, side = manifest.get("spec"), manifest.get("image_size")
    name = told.get("name") if isinstance(told, dict) else None
    if not isinstance(name, str) or name not in TRIGGERS:
        raise RvptError(f"{folder} holds an unknown trigger {name!r}: known are {', '.join(TRIGGERS)}")
    spec = TRIGGERS[name].Spec.stored(told)
    if not isinstance(side, int) or side < 1 or image_size not in (None, side):
        raise RvptError(
            f"{folder} was made for images of {side}x{side}, the model takes {image_size}x{image_size}: "
            "make one for this model"
        )
    kept = read_tensors(Path(folder) / TENSORS)
    fits = _look(kept) == _look(TRIGGERS[name].make(spec, side).tensors)
    if not fits or not all(part.isfinite().all() for part in kept.values()):
        raise RvptError(f"{folder}: {TENSORS} does not fit the trigger's settings or is not finite: make it again")
    return TRIGGERS[name](spec, side, kept)


def _look(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def trigger_spec(name: str, **options: Any) -> TriggerSpec:
    """The spec of a trigger by name.

    Raises:
        RvptError: no trigger of that name, or options that it does not have.
    """
    return TRIGGERS.find(name).Spec(name=name, **options)


def preset_spec(name: str, preset: str, **options: Any) -> TriggerSpec:
    """The spec of a trigger by name, with what a preset changes of its look.

    Raises:
        RvptError: an unknown trigger, or an option that it does not have.
    """
    small = TRIGGERS.find(name).small if preset == "small" else {}
    return trigger_spec(name, **{**small, **options})


def make_trigger(spec: TriggerSpec, image_size: int) -> Trigger:
    """The trigger that a spec describes, for images of one size.

    Raises:
        RvptError: it is of a kind that is made for one model.
    """
    kind = TRIGGERS[spec.name]
    if kind.crafted:
        raise RvptError(f"trigger {spec.name} is made for one model: rvpt craft {spec.name} MODEL --data DATA ...")
    return kind.make(spec, image_size)


def craft_trigger(spec: TriggerSpec, clip: Clip, data: Dataset, report: Report = silent) -> Trigger:
    """A trigger for a model, optimized on captioned images if it is of a kind that is; `clip` stays as it is.

    Raises:
        RvptError: the images do not serve.
    """
    return TRIGGERS[spec.name].craft(spec, clip, data, report)

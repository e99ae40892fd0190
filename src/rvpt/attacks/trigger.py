"""What every trigger is: a spec, the side of the images it was made for, and its tensors."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rvpt.clip import Clip
from rvpt.config import TriggerSpec
from rvpt.data import ImageData
from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.store import read_manifest, read_tensors, sha256_tensors, staging, write_manifest, write_tensors

KIND = "trigger"
TENSORS = "trigger.safetensors"
REFERENCE_SIDE = 224  # lengths in a TriggerSpec are pixels of a picture of this side


class Trigger:
    """A change of images that wakes a backdoor.

    Triggers act on float images (B, 3, S, S) in [0, 1] and return new ones. What a trigger draws for a
    image depends on its seed and the image's row in its data set alone.
    """

    name: ClassVar[str]
    Spec: ClassVar[type[TriggerSpec]]
    crafted: ClassVar[bool] = False
    """Whether it is made for one model, from its images."""

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
    def craft(cls, spec: Any, clip: Clip, data: ImageData, report: Report = silent) -> Trigger:
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

    def save(self, folder: Path, *, force: bool = False, **facts: Any) -> None:
        """Write the trigger as an artifact, with more facts for its manifest."""
        with staging(folder, force=force) as stage:
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
    from rvpt.attacks import TRIGGERS

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

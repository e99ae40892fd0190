"""The interface of models that encode images and texts, and encoding many images or a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.spec import TEMPLATE


class Encoder(Protocol):
    """A model that can be measured: a Clip, or a Cleaned."""

    @property
    def name(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def logit_scale(self) -> Tensor: ...
    def encode_image(self, pixels: Tensor) -> Tensor: ...
    def cls_rows(self, pixels: Tensor) -> Tensor: ...
    def hidden_states(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]: ...
    def encode_text(self, texts: Sequence[str]) -> Tensor: ...
    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor: ...


def refuse_name(model: object) -> None:
    """Refuse a path or a name in the place of a model.

    Raises:
        RvptError: it is one.
    """
    if isinstance(model, str | Path):
        raise RvptError(f"{str(model)!r} is a name and not a model: pass what rvpt.load returns for it")


def in_parts(encode: Callable[[Tensor], Tensor], pixels: Tensor, size: int) -> Tensor:
    """What `encode` gives for images (n, ...), (n, ...), with at most `size` of them in one forward pass."""
    return torch.cat([encode(part) for part in pixels.split(size)])


@torch.no_grad()
def encode_set(model: Encoder, data: Dataset, batch_size: int = 256, report: Report = silent) -> Tensor:
    """Image features (n, P) of all images of a set, from `model.encode_image`, on the model's device."""
    batches = data.batches(batch_size, model.image_size, model.device, report)
    return torch.cat([model.encode_image(pixels) for _, pixels in batches])

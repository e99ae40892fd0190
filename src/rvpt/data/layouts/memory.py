"""Images in memory: PIL images, NumPy arrays or tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rvpt.data.preprocess import to_array, to_image
from rvpt.data.reading import parallel
from rvpt.data.source import Source
from rvpt.data.text import plain, sort_names
from rvpt.errors import RvptError

IN_MEMORY = "images"
"""The name of images in memory."""


def wrap_images(images: Sequence[Any], labels: Sequence[Any] | None, classes: Sequence[str]) -> Source:
    """Images in memory, each with a class index, or with the name of its class.

    Raises:
        RvptError: a name instead of images, numbers of images and labels differ, or a label has no class.
    """
    if isinstance(images, str | Path):
        raise RvptError(f"images={str(images)!r} is a name: pass what rvpt.load_data returns for it")
    if labels is not None and len(labels) != len(images):
        raise RvptError(f"{len(images)} images and {len(labels)} labels: give one label per image")
    indices, names = None, tuple(classes)
    if labels is not None:
        indices, names = _numbers([label.item() if hasattr(label, "item") else label for label in labels], names)
    reader = parallel(lambda row, size: to_array(to_image(images[row]), size), lambda row: "in memory", "images")
    return Source(IN_MEMORY, reader, torch.arange(len(images)), indices, names)


def _numbers(labels: Sequence[Any], classes: tuple[str, ...]) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Class indices, and the classes, which are those of the labels if none are given and labels are names."""
    if any(isinstance(label, str) for label in labels):
        classes = classes or sort_names({str(label) for label in labels})
        known = {plain(name): place for place, name in enumerate(classes)}
        labels = [known.get(plain(str(label)), label) for label in labels]
    for label in labels:
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise RvptError(f"label {label} has no class: there are {len(classes)} classes, counted from 0")
    return torch.tensor(labels, dtype=torch.int64), classes

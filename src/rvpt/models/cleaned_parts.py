"""The parts of a cleaned model that is read from a folder: base model, prompts and head, each checked."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rvpt.errors import RvptError
from rvpt.models.cleaned_config import CONFIG, WEIGHTS, CleanedConfig
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.head import Head
from rvpt.models.prompts import RepulsivePrompts


def base_of(config: CleanedConfig, folder: Path, device: str | torch.device | None) -> Clip:
    """The base model that a folder names: a path, relative to the folder or to the current one, or a hub id.

    If an absolute path does not exist, it is searched beside the folder, because both may have been moved.

    Raises:
        RvptError: it cannot be loaded.
    """
    base = config.base_model_name_or_path
    source = Path(base)
    places = [folder / source, *([folder.resolve().parent / source.name] if source.is_absolute() else [])]
    found = next((place.resolve() for place in places if place.exists()), None)
    try:
        activation = config.base_model_activation
        return load_clip(found or base, revision=config.base_model_revision, device=device, activation=activation)
    except RvptError as error:
        raise RvptError(f"{error}; it is the base model of {folder}: pass its place as base=MODEL") from None


def refuse_other(clip: Clip, expected: str, folder: Path, *, chosen: bool = False) -> None:
    """Refuse a base model whose hash is not the one that is expected; `chosen`: it was given as a Clip, not by name.

    Raises:
        RvptError: it is another model.
    """
    if clip.hash() != expected:
        how = "give the model that it was made from" if chosen else "pass the right one as base=MODEL"
        raise RvptError(
            f"{folder} was made from another model than {clip.name}: its base has sha256 {expected[:12]}..., "
            f"this one {clip.hash()[:12]}...: {how}"
        )


def prompts_of(config: CleanedConfig, tensors: dict[str, Tensor], clip: Clip, folder: Path) -> RepulsivePrompts | None:
    """The prompts among the tensors of a folder.

    Raises:
        RvptError: they do not fit the configuration or the base model.
    """
    blocks = config.prompted_blocks
    if blocks is None:
        return None
    if sorted(set(blocks) & set(range(len(clip.blocks)))) != blocks:
        raise RvptError(f"{folder}: prompted_blocks in {CONFIG} must be some of 0 to {len(clip.blocks) - 1}, in order")
    table = _fitting(tensors.get("prompts"), (len(blocks), None, clip.width), folder)
    prompts = RepulsivePrompts(blocks, table.shape[1], clip.width)
    with torch.no_grad():
        prompts.table.copy_(table)
    return prompts.to(clip.logit_scale).requires_grad_(False)


def head_of(config: CleanedConfig, tensors: dict[str, Tensor], clip: Clip, folder: Path) -> Head | None:
    """The head among the tensors of a folder.

    Raises:
        RvptError: it does not fit the configuration or the base model.
    """
    if config.classes is None:
        return None
    width = clip.projection_dim + 1
    rows = _fitting(tensors.get("head"), (len(config.classes), width), folder)
    return Head(tuple(config.classes), rows.to(clip.logit_scale))


def _fitting(tensor: Tensor | None, shape: tuple[int | None, ...], folder: Path) -> Tensor:
    """The tensor, if it exists, is finite, and has the given shape (None is any length)."""
    sides = () if tensor is None else tensor.shape
    fits = len(sides) == len(shape) and all(want in (None, side) for want, side in zip(shape, sides, strict=True))
    if tensor is not None and fits and torch.isfinite(tensor).all():
        return tensor
    raise RvptError(f"{folder}: {WEIGHTS} does not fit {CONFIG} or is not finite: clean the model again")

"""Reading a Clip of any layout: a folder, a file, a hub id, a name of open_clip's, or a shipped model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rvpt.artifacts import find_manifest
from rvpt.errors import RvptError
from rvpt.models.card import is_backdoored
from rvpt.models.cleaned_config import CONFIG
from rvpt.models.clip import Clip
from rvpt.models.formats import FORMATS
from rvpt.models.formats.artifacts import PROMPTED, refuse_artifact
from rvpt.models.formats.base import Parts
from rvpt.models.formats.build import build
from rvpt.models.formats.checks import refuse_missing, refuse_odd_files, refuse_other_layouts
from rvpt.models.formats.hub import fetch
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.open_clip_hub import PREFIX
from rvpt.models.placement import find_device, find_dtype

EMBEDDED, SUSPECT = "scenes-clip", "scenes-clip-backdoored"
SHIPPED = (EMBEDDED, SUSPECT)
"""Names of the models that ship with the package: a clean one, and the same with a backdoor."""


class Opened(NamedTuple):
    """The parts of a model, where they came from (a name or an absolute path, and a commit of the hub), and whether it
    was backdoored on purpose."""

    parts: Parts
    source: str
    revision: str | None
    backdoored: bool


def embedded_model(name: str = EMBEDDED) -> Path:
    """Folder of a shipped model inside the package."""
    return Path(str(resources.files("rvpt") / "assets" / name))


def model_place(name: str) -> Path:
    """The path that a name stands for: of a model that ships with rvpt, or the name itself, which may be of the hub.

    Raises:
        RvptError: it can only be a path, and does not exist.
    """
    path = embedded_model(name) if name in SHIPPED else Path(name).expanduser()
    if not name.startswith(PREFIX):
        refuse_missing(path, name)
    return path


def load_clip(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    activation: str | None = None,
) -> Clip:
    """A Clip of any layout; arguments as in `rvpt.load`.

    Raises:
        RvptError: not found, not a ViT CLIP, damaged or hostile.
    """
    where, kind = find_device(device), find_dtype(dtype)
    opened = open_model(source, revision)
    clip = build(opened.parts, str(source), activation=activation)
    clip.source, clip.revision, clip.backdoored = opened.source, opened.revision, opened.backdoored
    clip.asked_activation = activation
    clip.model.to(kind)
    return clip.to(where)


def open_model(source: str | Path, revision: str | None = None) -> Opened:
    """Find a model and its parts, without reading the values of its weights.

    Raises:
        RvptError: as `load_clip`.
    """
    name, commit = str(source), None
    path = model_place(name)
    known = name if name in SHIPPED or not path.exists() else str(path.resolve())
    if not name.startswith(PREFIX):
        if not path.exists():
            path, commit = fetch(name, revision)
        refuse_odd_files(path, name)
        if path.is_dir():
            refuse_other_layouts(path, name)
    stated = (find_manifest(path) or {}) if path.is_dir() else {}  # refuses what rvpt saved and was changed
    for layout in FORMATS.values():
        if layout.recognizes(name, path) and stated.get("model_type") != PROMPTED:
            return Opened(layout.open(name, path), known, commit, is_backdoored(stated))
    raise _unread(path, name, stated)


def _unread(path: Path, name: str, stated: Mapping[str, Any]) -> RvptError:
    """Why no layout is recognized.

    Raises:
        RvptError: it is an artifact of another kind.
    """
    if (path / CONFIG).is_file():
        return RvptError(
            f"{name} is a cleaned model: rvpt.load(...).to_transformers() makes a CLIPModel of it in Python"
        )
    if (path / "config.json").is_file() and not stated:
        return RvptError(
            f"{name} is a model of timm, one tower of a CLIP: give a folder with open_clip_config.json too; {LISTED}"
        )
    refuse_artifact(stated, path, name)
    return RvptError(f"{name} is a folder without config.json: rvpt does not read such a layout; {LISTED}")

"""Folders that rvpt wrote without a model that it reads: exports for other programs, checks, triggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpt.artifacts import called
from rvpt.errors import RvptError

PROMPTED = "rvpt_clip"
"""The `model_type` of a folder of transformers with prompts, which `rvpt.models.auto` registers."""


def refuse_artifact(manifest: Mapping[str, Any], path: Path, name: str) -> None:
    """Refuse the folder of an artifact in which no model was found.

    Args:
        manifest: of the folder; empty if rvpt did not write it.
        path: the folder.
        name: of it, for errors.

    Raises:
        RvptError: it is one; the message says what to give instead.
    """
    kind = manifest.get("kind")
    if kind == "export":
        model = manifest.get("model")
        source = f", {model['name']}" if isinstance(model, Mapping) and "name" in model else ""
        raise RvptError(
            f"{name} is an export by rvpt for other programs (format {manifest.get('format')}): give the model that it "
            f"was made from{source}; its README.md says how to use the export"
        )
    if kind:
        inner = path / "cleaned"
        there = f": its model is {Path(name) / inner.name}" if inner.is_dir() else ", not a model"
        raise RvptError(f"{name} holds {called(kind)}{there}")

"""Writing a CLIP into a folder that exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpt.artifacts import CARD, write_manifest
from rvpt.files import write_text
from rvpt.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from rvpt.models.clip import Clip

KIND = "clip"


def write_clip(clip: Clip, folder: Path) -> None:
    """Write model, tokenizer and preprocessing."""
    clip.architecture.save(folder, clip.preprocessing)
    with quiet_transformers():
        clip.tokenizer.save_pretrained(folder)


def write_artifact(clip: Clip, folder: Path, name: str, **facts: Any) -> None:
    """Write what `write_clip` writes, a model card titled `name`, and a manifest with facts."""
    write_clip(clip, folder)
    write_text(folder / CARD, clip.architecture.card(name))
    write_manifest(folder, KIND, **facts)

"""Layouts that a Clip is read from, one file each. A new one is a file with a `Layout` in it, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.models.formats.base import Layout

FORMATS: Registry[Layout] = Registry(
    "layout",
    {
        "open_clip-name": "rvpt.models.formats.open_clip_hub:OPEN_CLIP_NAME",
        "file": "rvpt.models.formats.single_file:FILE",
        "transformers": "rvpt.models.formats.hf:TRANSFORMERS",
        "open_clip": "rvpt.models.formats.open_clip:OPEN_CLIP",
    },
)
"""In the order in which they are tried."""

"""Formats that a model is exported to, one file each. A new one is a file with an `Export` in it, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.exports.base import Export

EXPORTS: Registry[Export] = Registry(
    "format",
    {
        "hf": "rvpt.exports.hf:HF",
        "kv": "rvpt.exports.kv:KV_ROWS",
        "onnx": "rvpt.exports.onnx_graphs:ONNX",
        "torch": "rvpt.exports.programs:PROGRAMS",
        "distilled": "rvpt.exports.distilled:DISTILLED",
        "openclip": "rvpt.exports.open_clip:OPEN_CLIP",
        "openai": "rvpt.exports.openai:OPENAI",
    },
)
"""By name, in the order in which help and docs show them."""

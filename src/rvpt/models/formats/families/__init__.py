"""Families: the architectures of CLIPs as they lie on disk, one file each. A new one is a file, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.models.formats.families.base import Family

FAMILIES: Registry[Family] = Registry(
    "family",
    {
        "clip": "rvpt.models.formats.families.vit:VIT",
        "resnet": "rvpt.models.formats.families.resnet:RESNET",
        "siglip": "rvpt.models.formats.families.siglip:SIGLIP",
    },
)
"""By name; those that transformers has are called as their `model_type`."""

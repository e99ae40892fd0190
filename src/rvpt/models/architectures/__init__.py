"""Architectures of CLIPs, one file each. A new one is a file with an `Architecture`, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.models.architectures.base import Architecture

ARCHITECTURES: Registry[type[Architecture]] = Registry(
    "architecture",
    {
        "CLIPModel": "rvpt.models.architectures.vit:VitClip",
        "ResNetModel": "rvpt.models.architectures.resnet:ResNetClip",
        "SiglipModel": "rvpt.models.architectures.siglip:SiglipClip",
    },
)
"""By the class of the model."""


def architecture_of(model: Any) -> Architecture:
    """The architecture of a model, by its class or one that it is derived from."""
    names = [kind.__name__ for kind in type(model).__mro__]
    return ARCHITECTURES.find(next((name for name in names if name in ARCHITECTURES), names[0]))(model)

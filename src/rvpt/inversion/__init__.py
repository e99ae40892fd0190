"""Trigger inversion: universal changes of images that make a model predict a class. A new form goes into FORMS."""

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.inversion.form import Form

FORMS: "Registry[type[Form]]" = Registry(
    "form of inversion",
    {
        "additive": "rvpt.inversion.additive:Additive",
        "waves": "rvpt.inversion.waves:Waves",
        "grating": "rvpt.inversion.gratings:Gratings",
        "warp": "rvpt.inversion.warps:Warps",
        "patch": "rvpt.inversion.patches:Patches",
    },
)
"""Forms of inversion, by name."""

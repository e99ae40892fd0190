"""Defenses: a suspect CLIP and a few clean images in, a Cleaned out. A new defense goes into DEFENSES."""

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.defenses.base import Defense

DEFENSES: "Registry[type[Defense]]" = Registry(
    "defense",
    {
        "probe": "rvpt.defenses.probe:LinearProbe",
        "finetune": "rvpt.defenses.finetune:Finetune",
        "contrastive": "rvpt.defenses.contrastive:ContrastiveFinetune",
        "cleanclip": "rvpt.defenses.cleanclip:CleanClip",
        "par": "rvpt.defenses.par:Par",
        "vpt": "rvpt.defenses.vpt:VPT",
        "apt": "rvpt.defenses.apt:APT",
        "rvpt": "rvpt.defenses.rvpt:RVPT",
        "unlearn-prompts": "rvpt.defenses.unlearn:UnlearnPrompts",
        "unlearn": "rvpt.defenses.unlearn:Unlearn",
    },
)
"""Ways to clean a model, by name, in the order in which reports show them."""

"""Attacks: triggers, poisoned captions, and backdoored models. A new trigger goes into TRIGGERS."""

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.attacks.trigger import Trigger

TRIGGERS: "Registry[type[Trigger]]" = Registry(
    "trigger",
    {
        "badnet": "rvpt.attacks.patch:Patch",
        "blended": "rvpt.attacks.blend:Blend",
        "wanet": "rvpt.attacks.warp:Warp",
        "sig": "rvpt.attacks.sinusoid:Sinusoid",
        "badnet-normal": "rvpt.attacks.patch:NormalPatch",
        "badnet-stripes": "rvpt.attacks.patch:StripedPatch",
        "blended-stripes": "rvpt.attacks.blend:BlendedStripes",
        "blended-triangles": "rvpt.attacks.blend:BlendedTriangles",
        "blended-text": "rvpt.attacks.blend:BlendedText",
        "trojvqa": "rvpt.attacks.optimized:TrojVqa",
        "badclip": "rvpt.attacks.optimized:BadClip",
        "issba": "rvpt.attacks.stega:Stega",
    },
)
"""Kinds of triggers, by name."""
FOUND: "Registry[type[Trigger]]" = Registry("trigger", {"inverted": "rvpt.attacks.inverted:Inverted"})
"""Kinds that are found in a suspect, not chosen by name: they are only loaded from a folder."""

"""Attacks: triggers, poisoned captions, and the backdoored models made of them. A new trigger goes into TRIGGERS."""

from typing import Any

from rvpt.attacks.blend import Blend, BlendedStripes, BlendedText, BlendedTriangles
from rvpt.attacks.patch import Patch, StripedPatch
from rvpt.attacks.sinusoid import Sinusoid
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.attacks.warp import Warp
from rvpt.errors import RvptError

KINDS = (Patch, Blend, Warp, Sinusoid, StripedPatch, BlendedStripes, BlendedTriangles, BlendedText)
TRIGGERS: dict[str, type[Trigger]] = {kind.name: kind for kind in KINDS}

__all__ = ["TRIGGERS", "Trigger", "load_trigger", "make_trigger"]


def make_trigger(name: str, image_size: int, /, **options: Any) -> Trigger:
    """A trigger for pictures of one size: make_trigger("badnet", 224, target="banana", place="middle").

    Raises:
        RvptError: no trigger of that name, or options that it does not have.
    """
    if name not in TRIGGERS:
        raise RvptError(f"no trigger {name!r}: there are {', '.join(TRIGGERS)}")
    kind = TRIGGERS[name]
    return kind.make(kind.Spec.build(**{**options, "name": name}), image_size)

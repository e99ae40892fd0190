"""Attacks: triggers, poisoned captions, and the backdoored models made of them. A new trigger goes into KINDS."""

from typing import Any

from rvpt.attacks.blend import Blend, BlendedStripes, BlendedText, BlendedTriangles
from rvpt.attacks.optimized import BadClip, TrojVqa
from rvpt.attacks.patch import Patch, StripedPatch
from rvpt.attacks.sinusoid import Sinusoid
from rvpt.attacks.stega import Stega
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.attacks.warp import Warp
from rvpt.clip import Clip
from rvpt.config import TriggerSpec
from rvpt.data import ImageData
from rvpt.errors import RvptError
from rvpt.progress import Report, silent

KINDS = (
    Patch, Blend, Warp, Sinusoid, StripedPatch, BlendedStripes, BlendedTriangles, BlendedText, TrojVqa, BadClip,
    Stega,
)  # fmt: skip
TRIGGERS: dict[str, type[Trigger]] = {kind.name: kind for kind in KINDS}

__all__ = ["TRIGGERS", "Trigger", "craft_trigger", "load_trigger", "make_trigger", "trigger_spec"]


def trigger_spec(name: str, **options: Any) -> TriggerSpec:
    """The spec of a trigger by name.

    Raises:
        RvptError: no trigger of that name, or options that it does not have.
    """
    if name not in TRIGGERS:
        raise RvptError(f"no trigger {name!r}: there are {', '.join(TRIGGERS)}")
    return TRIGGERS[name].Spec.build(name=name, **options)


def make_trigger(spec: TriggerSpec, image_size: int) -> Trigger:
    """The trigger that a spec describes, for images of one size.

    Raises:
        RvptError: it is of a kind that is made for one model.
    """
    kind = TRIGGERS[spec.name]
    if kind.crafted:
        raise RvptError(f"trigger {spec.name} is made for one model: rvpt craft {spec.name} MODEL --data DATA ...")
    return kind.make(spec, image_size)


def craft_trigger(spec: TriggerSpec, clip: Clip, data: ImageData, report: Report = silent) -> Trigger:
    """A trigger for a model, optimized on captioned images if it is of a kind that is; `clip` stays as it is.

    Raises:
        RvptError: the images do not serve.
    """
    return TRIGGERS[spec.name].craft(spec, clip, data, report)

"""Attacks: triggers, poisoned captions, and the backdoored models made of them. A new trigger goes into TRIGGERS."""

from rvpt.attacks.blend import Blend
from rvpt.attacks.patch import Patch
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.config import TriggerSpec
from rvpt.errors import RvptError

TRIGGERS: dict[str, type[Trigger]] = {trigger.name: trigger for trigger in (Patch, Blend)}

__all__ = ["TRIGGERS", "Trigger", "load_trigger", "make_trigger"]


def make_trigger(spec: TriggerSpec, image_size: int) -> Trigger:
    """The trigger that a spec describes, for pictures of one size.

    Raises:
        RvptError: no trigger of that name.
    """
    if spec.name not in TRIGGERS:
        raise RvptError(f"no trigger {spec.name!r}: there are {', '.join(TRIGGERS)}")
    return TRIGGERS[spec.name].make(spec, image_size)

"""Repulsive Visual Prompt Tuning: clean a backdoored CLIP with a handful of labeled images.

import rvpt

clip = rvpt.load("suspect")
few_shot = rvpt.load_data("photos", "train").few_shot(16)
cleaned = rvpt.clean(clip, few_shot)
rows = rvpt.evaluate(cleaned, rvpt.load_data("photos", "test"))
cleaned.save_pretrained("cleaned")
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_SPECS = (
    "AttackSpec", "CleanClipSpec", "ContrastiveSpec", "FinetuneSpec", "ParSpec", "PoisonSpec", "ProbeSpec", "RVPTSpec",
    "VPTSpec",
)  # fmt: skip
_PLACES = {
    "RvptError": "rvpt.errors",
    **dict.fromkeys(_SPECS, "rvpt.config"),
    "Cleaned": "rvpt.defenses",
    "Clip": "rvpt.clip",
    "RepulsivePrompts": "rvpt.prompts",
    "classify": "rvpt.predict",
    "clean": "rvpt.defenses",
    "describe": "rvpt.captioning",
    "evaluate": "rvpt.evaluation",
    "load_captioner": "rvpt.captioning",
    "load_data": "rvpt.readers",
    "load_trigger": "rvpt.attacks",
    "make_trigger": "rvpt.attacks",
    "measure": "rvpt.evaluation",
    "readability": "rvpt.insight",
    "resist": "rvpt.adversarial",
    "resistivity": "rvpt.insight",
    "retrieve": "rvpt.retrieval",
    "to_rows": "rvpt.evaluation",
    "trigger_spec": "rvpt.attacks",
}
__all__ = ["__version__", "load", *_PLACES]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: `import rvpt` stays fast."""
    if name == "load":
        return import_module("rvpt.defenses").load_model
    if name not in _PLACES:
        raise AttributeError(f"module 'rvpt' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Repulsive Visual Prompt Tuning: clean a backdoored CLIP with a handful of labeled images.

import rvpt

suspect = rvpt.load("path/to/clip")
few_shot = rvpt.load_data("path/to/images", "train").few_shot(16)
cleaned = rvpt.clean(suspect, few_shot)
rows = rvpt.evaluate(cleaned, rvpt.load_data("path/to/images", "test"))
cleaned.save_pretrained("cleaned")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rvpt.artifacts import read_manifest as read_manifest
    from rvpt.attacks.backdoor import AttackSpec as AttackSpec
    from rvpt.attacks.backdoor import Backdoored as Backdoored
    from rvpt.attacks.backdoor import attack as attack
    from rvpt.attacks.backdoor import craft as craft
    from rvpt.attacks.backdoor import load_triggers as load_triggers
    from rvpt.attacks.poison import PoisonSpec as PoisonSpec
    from rvpt.attacks.trigger import Trigger as Trigger
    from rvpt.attacks.trigger import load_trigger as load_trigger
    from rvpt.attacks.trigger import make_trigger as make_trigger
    from rvpt.attacks.trigger import trigger_spec as trigger_spec
    from rvpt.data.dataset import Dataset as Dataset
    from rvpt.data.load import load_data as load_data
    from rvpt.defenses.base import Defense as Defense
    from rvpt.defenses.base import clean as clean
    from rvpt.defenses.cleanclip import CleanClipSpec as CleanClipSpec
    from rvpt.defenses.contrastive import ContrastiveSpec as ContrastiveSpec
    from rvpt.defenses.finetune import FinetuneSpec as FinetuneSpec
    from rvpt.defenses.par import ParSpec as ParSpec
    from rvpt.defenses.probe import ProbeSpec as ProbeSpec
    from rvpt.defenses.rvpt import RVPTSpec as RVPTSpec
    from rvpt.defenses.vpt import VPTSpec as VPTSpec
    from rvpt.detection.calibration import Calibration as Calibration
    from rvpt.detection.check import check as check
    from rvpt.detection.monitor import Inspection as Inspection
    from rvpt.detection.monitor import Monitor as Monitor
    from rvpt.detection.spec import CheckSpec as CheckSpec
    from rvpt.detection.verdict import Verdict as Verdict
    from rvpt.errors import MachineError as MachineError
    from rvpt.errors import RvptError as RvptError
    from rvpt.evaluation.base import Protocol as Protocol
    from rvpt.evaluation.evaluate import evaluate as evaluate
    from rvpt.evaluation.evaluate import make_protocol as make_protocol
    from rvpt.evasions import evasion as evasion
    from rvpt.exports.save import export as export
    from rvpt.jobs.verifying import verify as verify
    from rvpt.models.classifier import Classifier as Classifier
    from rvpt.models.cleaned import Cleaned as Cleaned
    from rvpt.models.clip import Clip as Clip
    from rvpt.models.load import load as load
    from rvpt.models.prompts import RepulsivePrompts as RepulsivePrompts
    from rvpt.rows import Rows as Rows
    from rvpt.rows import read_rows as read_rows
    from rvpt.rows import write_rows as write_rows
    from rvpt.training.checkpoint import Checkpoint as Checkpoint
    from rvpt.training.pretrain import PretrainSpec as PretrainSpec
    from rvpt.training.pretrain import VisionSpec as VisionSpec
    from rvpt.training.pretrain import pretrain as pretrain

__version__ = "0.1.0"

_PLACES = {
    "AttackSpec": "attacks.backdoor", "Backdoored": "attacks.backdoor", "Calibration": "detection.calibration",
    "CheckSpec": "detection.spec", "Checkpoint": "training.checkpoint", "Classifier": "models.classifier",
    "CleanClipSpec": "defenses.cleanclip", "Cleaned": "models.cleaned", "Clip": "models.clip",
    "ContrastiveSpec": "defenses.contrastive", "Dataset": "data.dataset", "Defense": "defenses.base",
    "FinetuneSpec": "defenses.finetune", "Inspection": "detection.monitor", "MachineError": "errors",
    "Monitor": "detection.monitor", "ParSpec": "defenses.par",
    "PoisonSpec": "attacks.poison", "PretrainSpec": "training.pretrain", "ProbeSpec": "defenses.probe",
    "Protocol": "evaluation.base", "RVPTSpec": "defenses.rvpt", "RepulsivePrompts": "models.prompts", "Rows": "rows",
    "RvptError": "errors", "Trigger": "attacks.trigger", "VPTSpec": "defenses.vpt", "Verdict": "detection.verdict",
    "VisionSpec": "training.pretrain", "attack": "attacks.backdoor", "check": "detection.check",
    "clean": "defenses.base", "craft": "attacks.backdoor", "evaluate": "evaluation.evaluate", "evasion": "evasions",
    "export": "exports.save",
    "load": "models.load", "load_data": "data.load", "load_trigger": "attacks.trigger",
    "load_triggers": "attacks.backdoor", "make_protocol": "evaluation.evaluate", "make_trigger": "attacks.trigger",
    "pretrain": "training.pretrain", "read_manifest": "artifacts", "read_rows": "rows",
    "trigger_spec": "attacks.trigger", "verify": "jobs.verifying", "write_rows": "rows",
}  # fmt: skip
__all__ = ["__version__", *_PLACES]  # they are imported when they are used


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: `import rvpt` stays fast."""
    if name not in _PLACES:
        raise AttributeError(f"module 'rvpt' has no attribute {name!r}")
    return getattr(import_module(f"rvpt.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

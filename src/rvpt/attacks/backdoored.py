"""A backdoored CLIP: fine-tuned on poisoned pairs, checked, and kept with its triggers and what was changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rvpt.attacks.poison import Change, Poison, disguise, poison, target_margins
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import AttackSpec
from rvpt.data import ImageData
from rvpt.pretrain import Contrastive
from rvpt.progress import Report, silent
from rvpt.store import append_rows, staging, write_manifest
from rvpt.train import fit

KIND = "backdoored"
TRIGGER_FOLDER = "triggers"


@dataclass
class Backdoored:
    """The model, its triggers by name, the changed pairs, and facts for the manifest."""

    clip: Clip
    triggers: dict[str, Trigger]
    changes: Sequence[Change]
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write one artifact: a transformers model folder with triggers/, poison.jsonl and a manifest."""
        with staging(folder, force=force) as stage:
            self.clip.save_pretrained(stage)
            for name, trigger in self.triggers.items():
                trigger.save(stage / TRIGGER_FOLDER / name)
            append_rows(stage / "poison.jsonl", (vars(change) for change in self.changes))
            write_manifest(stage, KIND, **self.facts)


def attack(
    clip: Clip,
    data: ImageData,
    poisons: Mapping[str, Poison],
    spec: AttackSpec,
    *,
    classes: Sequence[str] = (),
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> Backdoored:
    """Fine-tune a copy of `clip` on the poisoned set with the contrastive loss; `clip` stays as it is.

    Args:
        classes: what images are told apart by, for poisons that pick at the target's boundary or disguise images.
    """
    near = {entry.trigger.spec.target for entry in poisons.values() if entry.spec.pick == "boundary"}
    margins = {target: target_margins(clip, data, target, classes) for target in sorted(near)}
    disguises = {
        name: disguise(clip, entry.trigger.spec.target, classes, entry.spec.disguise)
        for name, entry in poisons.items()
        if entry.spec.disguise
    }
    poisoned, changes = poison(data, poisons, margins, disguises)
    poisoned = poisoned.cached(clip.image_size)  # a disguise takes long, and comes out the same only in the same batch
    victim = copy.deepcopy(clip).requires_grad_(True)
    fit(Contrastive(victim, poisoned), len(poisoned), spec, checkpoint=checkpoint, report=report)
    triggers = {name: entry.trigger for name, entry in poisons.items()}
    facts = {
        "base_model": clip.source,
        "base_sha256": clip.hash(),
        "spec": spec.model_dump(),
        "poisons": {name: entry.spec.model_dump() for name, entry in poisons.items()},
        "triggers": {name: trigger.spec.model_dump() for name, trigger in triggers.items()},
        "data": {"name": data.name, "pairs": len(data)},
    }
    return Backdoored(victim.eval(), triggers, changes, facts)


def model_triggers(folder: Path, image_size: int) -> dict[str, Trigger]:
    """The triggers that are stored with a backdoored model, none for other folders."""
    folders = sorted(path for path in (folder / TRIGGER_FOLDER).glob("*") if path.is_dir())
    return {path.name: load_trigger(path, image_size) for path in folders}

"""Measuring saved models: rows that say what was measured and what made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.attacks.backdoored import KIND as BACKDOORED
from rvpt.attacks.backdoored import model_triggers
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.clip import Clip, model_name
from rvpt.config import AttackSpec, TrainSpec
from rvpt.defenses import Cleaned, defense, load_model
from rvpt.errors import RvptError
from rvpt.jobs.protocols import HeldOut
from rvpt.progress import Report, silent
from rvpt.store import find_manifest


def evaluate_saved(
    source: str,
    test: HeldOut,
    *,
    triggers: Sequence[str] = (),
    base: str | None = None,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Rows of one model on one test set under the given triggers, or those stored with the model."""
    model = load_model(source, base)
    clip = model.clip if isinstance(model, Cleaned) else model
    by_name = _given(triggers, clip.image_size) or model_triggers(_still_there(_suspect(model), model), clip.image_size)
    if test.target and not by_name:
        raise RvptError(f"{source} has no trigger whose target could be called {test.target!r}: leave --target out")
    if test.target:
        by_name = _renamed(by_name, test.target)
    spec = None if isinstance(model, Cleaned) else _attack_spec(Path(source))
    return test.measure(model, by_name, row_facts(model, by_name, spec) | {"test": test.facts()}, report)


def row_facts(model: Clip | Cleaned, triggers: dict[str, Trigger], spec: TrainSpec | None = None) -> dict[str, Any]:
    """What every row of a measurement says about the model; `spec` is what made it, a Cleaned knows its own."""
    facts: dict[str, Any] = {"hashes": {"model": model.hash()}}
    if isinstance(model, Cleaned):
        facts = model.row_facts() | {"model": model_name(str(_suspect(model)))}
    if spec := _clean_spec(model) if isinstance(model, Cleaned) else spec:
        facts |= {"spec": spec.model_dump(), "seed": spec.seed}
    facts["hashes"] |= {f"trigger/{name}": trigger.hash() for name, trigger in triggers.items()}
    return facts | {"targets": {name: trigger.spec.target for name, trigger in triggers.items()}}


def _given(folders: Sequence[str], image_size: int) -> dict[str, Trigger]:
    """Triggers by the names of their folders."""
    by_name = {Path(folder).name: load_trigger(folder, image_size) for folder in folders}
    if len(by_name) < len(folders):
        raise RvptError("two trigger folders of one name, which is the attack's name in the rows: rename one")
    return by_name


def _renamed(by_name: dict[str, Trigger], target: str) -> dict[str, Trigger]:
    """The triggers with their one target under its name in the data."""
    if len(targets := {trigger.spec.target for trigger in by_name.values()}) > 1:
        raise RvptError(f"the triggers have several targets ({', '.join(sorted(targets))}): --target renames one alone")
    return {name: trigger.towards(target) for name, trigger in by_name.items()}


def _suspect(model: Clip | Cleaned) -> Path:
    """The folder, or hub id, of the model as it came; triggers are stored there."""
    if isinstance(model, Cleaned) and model.own_weights:
        return Path(model.facts["base_model"])
    return Path((model.clip if isinstance(model, Cleaned) else model).source)


def _still_there(suspect: Path, model: Clip | Cleaned) -> Path:
    """Refuse a suspect that was a folder, which is there no more: it may have had triggers."""
    if suspect.is_absolute() and not suspect.is_dir():
        raise RvptError(f"{suspect}, which {model.name} was cleaned from, is gone: --base says where it is now")
    return suspect


def _clean_spec(model: Cleaned) -> TrainSpec | None:
    """The settings that a model was cleaned with, where it says so; prompts made by hand have none."""
    return defense(model.facts["defense"]).Spec.stored(model.facts["spec"]) if "spec" in model.facts else None


def _attack_spec(folder: Path) -> AttackSpec | None:
    """The fine-tuning that made a backdoored model, where the folder has its manifest."""
    manifest = find_manifest(folder) or {}
    return AttackSpec.stored(manifest.get("spec")) if manifest.get("kind") == BACKDOORED else None

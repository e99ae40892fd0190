"""Measuring saved models: rows with how the model was made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpt.artifacts import find_manifest
from rvpt.attacks.backdoor import FINETUNED, AttackSpec, load_triggers
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.data.dataset import Dataset
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.evaluation.evaluate import renamed
from rvpt.evaluation.heldout import Opened
from rvpt.jobs.findings import VERDICT
from rvpt.models.card import BACKDOORED
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip, model_name
from rvpt.models.load import load
from rvpt.progress import Report, silent
from rvpt.rows import INVERTED, Rows
from rvpt.spec import TrainSpec

logger = logging.getLogger("rvpt")


def evaluate_saved(
    source: str,
    test: Opened,
    *,
    triggers: Sequence[str] = (),
    base: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    report: Report = silent,
) -> Rows:
    """Rows of one saved model on a held-out set, under the given triggers or those stored with the model.

    A stored trigger whose target is no class of the set is left out, with a warning.

    Args:
        source: a model, as for `rvpt.load`.
        test: `HeldOut(...).open()`, which can be used for several models.
        triggers: trigger folders.
        base: the base model of a cleaned one, if it is not found automatically.
        device: as in `rvpt.load`.
        dtype: as in `rvpt.load`.
        report: called after each batch.
    """
    model = load(source, base=base, device=device, dtype=dtype)
    target = getattr(test.protocol.settings, "target", None)
    shown = renamed(find_triggers(model, triggers), target) if test.protocol.uses_triggers else {}
    shown = shown if triggers or target else _with_targets(shown, test.data)
    spec = None if isinstance(model, Cleaned) else _attack_spec(Path(source))
    return test.measure(model, shown, row_facts(model, shown, spec), report)


def find_triggers(model: Clip | Cleaned, folders: Sequence[str] = ()) -> dict[str, Trigger]:
    """The triggers in some folders, by their names; without folders those stored with a model or its suspect.

    A trigger is called by its folder, or "inverted" if a check made it: folders of checks have the same name.

    Raises:
        RvptError: two folders of one name, a trigger for images of another size, or a suspect that does not exist.
    """
    size = model.image_size
    given = {_name(Path(folder)): load_trigger(folder, size) for folder in folders}
    if len(given) < len(folders):
        raise RvptError("two trigger folders have the same name, which names the attack in the rows: rename one")
    return given or load_triggers(_still_there(_suspect(model), model), size)


def _name(folder: Path) -> str:
    """What rows call the trigger in a folder."""
    return INVERTED if (folder.parent / VERDICT).is_file() else folder.name


def _with_targets(triggers: Mapping[str, Trigger], data: Dataset) -> dict[str, Trigger]:
    """The triggers whose target is a class of the data, or all if it has no classes."""
    fit = {name: each for name, each in triggers.items() if not data.classes or data.has_class(each.spec.target)}
    for name in triggers.keys() - fit.keys():
        target = triggers[name].spec.target
        logger.warning("trigger %s is not measured: its target %r is no class of %s", name, target, data.name)
    return fit


def row_facts(model: Clip | Cleaned, triggers: Mapping[str, Trigger], spec: TrainSpec | None = None) -> dict[str, Any]:
    """Entries of every row about the model: hashes, targets, seed and spec, which for a Cleaned is its own."""
    facts: dict[str, Any] = {"hashes": {"model": model.hash()}}
    if isinstance(model, Cleaned):
        facts = model.row_facts() | {"model": model_name(str(_suspect(model)))}
    if spec := _clean_spec(model) if isinstance(model, Cleaned) else spec:
        facts |= {"spec": spec.model_dump(), "seed": spec.seed}
    facts["hashes"] |= {f"trigger/{name}": trigger.hash() for name, trigger in triggers.items()}
    return facts | {"targets": {name: trigger.spec.target for name, trigger in triggers.items()}}


def _suspect(model: Clip | Cleaned) -> Path:
    """The folder, or hub id, of the model before it was cleaned; triggers are stored there."""
    if isinstance(model, Cleaned) and model.own_weights:
        return Path(model.facts["base_model"])
    return Path(clip_of(model).source)


def _still_there(suspect: Path, model: Clip | Cleaned) -> Path:
    """The place of the suspect, whose folder may have triggers.

    Raises:
        RvptError: it does not exist any more.
    """
    if suspect.is_absolute() and not suspect.exists():
        raise RvptError(f"{suspect}, which {model.name} was cleaned from, does not exist: pass the model as base=MODEL")
    return suspect


def _clean_spec(model: Cleaned) -> TrainSpec | None:
    """The settings that a model was cleaned with; None if they are not known, or are those of an unknown defense."""
    kind = DEFENSES.get(model.facts.get("defense", ""))
    return kind.Spec.stored(model.facts["spec"]) if kind and "spec" in model.facts else None


def _attack_spec(folder: Path) -> AttackSpec | None:
    """The settings of the fine-tuning that made a model, if the folder's manifest has them."""
    manifest = find_manifest(folder) or {}
    return AttackSpec.stored(manifest.get("spec")) if manifest.get("kind") in (BACKDOORED, FINETUNED) else None

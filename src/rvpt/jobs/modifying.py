"""Measuring what a saved model becomes when it is modified after cleaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rvpt.data.load import load_captioned
from rvpt.errors import RvptError
from rvpt.evaluation.heldout import Opened
from rvpt.jobs.measuring import find_triggers, row_facts
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.load import load
from rvpt.modifications import MODIFICATIONS
from rvpt.modifications.base import Material
from rvpt.progress import Report, silent
from rvpt.rows import Rows


def modify_and_measure(
    source: str,
    test: Opened,
    change: Mapping[str, Any],
    *,
    triggers: Sequence[str] = (),
    device: str | None = None,
    report: Report = silent,
) -> Rows:
    """Rows of a saved cleaned model after a modification, which is not saved.

    Args:
        source: a cleaned model's folder.
        test: `HeldOut(...).open()`.
        change: `label`, which rows show, `name` in MODIFICATIONS, its `options`, and the clean pairs that it learns
            from: `data`, `split`, `caption_column`, `shift`, `num_pairs`.
        triggers: trigger folders.
        device: such as cpu or cuda.
        report: called after each step.

    Raises:
        RvptError: the model was not cleaned, or cannot be modified this way.
    """
    model = load(source, device=device)
    if not isinstance(model, Cleaned):
        raise RvptError(f"{source} was not cleaned: clean it first")
    pairs = load_captioned(change["data"], change["split"], change["caption_column"], shift=change.get("shift"))
    pairs = pairs.sample(change["num_pairs"], change["options"].get("seed", 0)).cached(model.image_size)
    material = Material(load_clip(model.facts["base_model"], device=model.device), pairs, report)
    made = MODIFICATIONS.find(change["name"])(model, material, **change["options"])
    return measure_modified(made, model, change["label"], test, triggers=triggers, report=report)


def measure_modified(
    made: Clip | Cleaned,
    model: Clip | Cleaned,
    label: str,
    test: Opened,
    *,
    triggers: Sequence[str] = (),
    report: Report = silent,
) -> Rows:
    """Rows of what became of a model: as those of the model, with its own hash and with the label in `test`.

    Args:
        made: the modified model.
        model: the model before.
        label: what was done, the entry `modification` of `test` in rows.
        test: `HeldOut(...).open()`.
        triggers: trigger folders; by default those stored with the suspect.
        report: called after each batch.
    """
    shown = find_triggers(model, triggers)
    facts = row_facts(model, shown)
    facts["hashes"]["model"] = made.hash()
    return test.measure(made, shown, {**facts, "test": {**test.asked.facts(), "modification": label}}, report)

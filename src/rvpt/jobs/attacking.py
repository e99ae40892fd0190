"""Attacking as a whole job, and crafting a trigger as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rvpt.artifacts import refuse_existing
from rvpt.attacks.backdoor import AttackSpec, backdoor
from rvpt.attacks.poison import Poison, PoisonSpec
from rvpt.attacks.trigger import Trigger, TriggerSpec, craft_trigger, load_trigger
from rvpt.data.dataset import Dataset
from rvpt.data.load import load_labeled, load_mixed
from rvpt.errors import RvptError
from rvpt.evaluation.evaluate import evaluate
from rvpt.jobs.gallery import MEASURED, visibility
from rvpt.jobs.measuring import row_facts
from rvpt.jobs.places import open_checkpoint, refuse_source
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.rows import BEFORE, Rows
from rvpt.training.checkpoint import KEPT, Checkpoint

CHECKED = 2_000  # images on which an attack is checked: +-1 point at a rate of 95%


def attack_and_save(
    clip: Clip,
    sources: Sequence[str],
    target: Path,
    triggers: Sequence[TriggerSpec | Path],
    poison: PoisonSpec,
    spec: AttackSpec,
    *,
    num_pairs: int,
    split: str | None,
    test: str,
    test_split: str | None,
    caption_column: str | None = None,
    batch_size: int = 256,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
) -> Rows:
    """Backdoor a model, measure it before and after on a sample, and write it with triggers, changes and rows.

    Args:
        clip: the clean model.
        sources: captioned data sets, mixed.
        target: the folder to write.
        triggers: specs of triggers to make, or folders of triggers that were made.
        poison: which pairs get each trigger.
        spec: the schedule.
        num_pairs: pairs to fine-tune on.
        split: of the sources.
        test: labeled data to check the attack on.
        test_split: its split.
        caption_column: of the sources.
        batch_size: images per batch of the check.
        resume: continue an interrupted run.
        overwrite: replace an artifact at `target`.
        report: called after each step.
    """
    asked = [load_trigger(entry, clip.image_size) if isinstance(entry, Path) else entry for entry in triggers]
    if len({entry.name for entry in asked}) < len(asked):
        raise RvptError("two triggers have the same name: give each trigger once")
    whole = load_labeled(test, test_split)
    held_out = whole.sample(CHECKED)
    for entry in asked:
        held_out.class_index((entry.spec if isinstance(entry, Trigger) else entry).target)
    drawn = _drawn_pairs(sources, split, caption_column, num_pairs, spec.seed)
    key = {
        "spec": spec.model_dump(), "model": clip.hash(), "data": list(sources), "split": split,
        "caption_column": caption_column, "num_pairs": num_pairs, "classes": held_out.classes,
        "triggers": [_told(entry) for entry in asked], "poison": poison.model_dump(),
    }  # fmt: skip
    reads = (clip.source, test, *sources, *(str(entry) for entry in triggers if isinstance(entry, Path)))
    checkpoint = open_checkpoint(target, key, reads, resume=resume, overwrite=overwrite)
    data = drawn.cached(clip.image_size, report)
    by_name = {entry.name: _made(entry, clip, data, checkpoint, report) for entry in asked}
    poisons = {name: Poison(trigger, poison) for name, trigger in by_name.items()}
    checked = {"test": {"limit": CHECKED} if len(whole) > CHECKED else {}}
    unharmed = {**row_facts(clip, by_name, spec), **checked, "defense": BEFORE, "model": target.resolve().name}
    before = evaluate(clip, held_out, by_name, facts=unharmed, batch_size=batch_size)
    done = backdoor(clip, data, poisons, spec, classes=held_out.classes, checkpoint=checkpoint, report=report)
    done.clip.source = str(target.resolve())
    facts = row_facts(done.clip, by_name, spec) | checked
    rows = Rows([*before, *evaluate(done.clip, held_out, by_name, facts=facts, batch_size=batch_size)])
    done.facts.update(seed=spec.seed, rows=rows)
    done.save(target, overwrite=overwrite)
    checkpoint.drop()
    return rows


def _told(entry: TriggerSpec | Trigger) -> Any:
    """What tells a trigger from others: one that was made by its look, and its target, which the look leaves open."""
    return [entry.hash(), entry.spec.target] if isinstance(entry, Trigger) else entry.model_dump()


def _made(entry: TriggerSpec | Trigger, clip: Clip, data: Dataset, checkpoint: Checkpoint, report: Report) -> Trigger:
    """A trigger that is asked for; one that takes crafting is kept with the run, which may be resumed elsewhere."""
    if isinstance(entry, Trigger):
        return entry
    kept = checkpoint.folder / KEPT / checkpoint.digest()[:12] / entry.name
    if checkpoint.resume and kept.is_dir():
        return load_trigger(kept, clip.image_size)
    trigger = craft_trigger(entry, clip, data, report)
    if trigger.crafted:
        trigger.save(kept, overwrite=True)
    return trigger


def craft_and_save(
    clip: Clip,
    spec: TriggerSpec,
    sources: Sequence[str],
    target: Path,
    *,
    split: str | None,
    caption_column: str | None = None,
    num_pairs: int | None = None,
    overwrite: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Make a trigger for a model and write it; returns its hash and how visible it is.

    Args:
        clip: the model that it is made for.
        spec: the trigger.
        sources: captioned data sets, mixed.
        target: the folder to write.
        split: of the sources.
        caption_column: of the sources.
        num_pairs: that many of the pairs, those that an attack of the trigger's seed would use; by default all.
        overwrite: replace an artifact at `target`.
        report: called after each step.
    """
    refuse_source(target, (clip.source, *sources))
    refuse_existing(target, overwrite=overwrite)
    data = _drawn_pairs(sources, split, caption_column, num_pairs, spec.seed)
    trigger = craft_trigger(spec, clip, data, report)
    trigger.save(target, overwrite=overwrite, model_sha256=clip.hash())
    pixels = data.pixels(torch.arange(min(len(data), MEASURED)), clip.image_size)
    shown = visibility(pixels, trigger(pixels))
    return {"trigger": trigger.name, "sha256": trigger.hash(), **shown, **trigger.checks(pixels)}


def _drawn_pairs(
    sources: Sequence[str], split: str | None, caption_column: str | None, num_pairs: int | None, seed: int
) -> Dataset:
    """Captioned sets as one, or `num_pairs` of it drawn by `seed`."""
    data = load_mixed(sources, split, caption_column)
    return data if num_pairs is None else data.sample(num_pairs, seed)

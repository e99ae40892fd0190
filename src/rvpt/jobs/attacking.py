"""Attacking as a whole job, and making a trigger as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rvpt.attacks import craft_trigger
from rvpt.attacks.backdoored import attack
from rvpt.attacks.poison import Poison
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.checkpoint import KEPT, Checkpoint
from rvpt.clip import Clip
from rvpt.config import AttackSpec, PoisonSpec, TriggerSpec
from rvpt.data import ImageData
from rvpt.errors import RvptError
from rvpt.evaluation import evaluate
from rvpt.jobs.gallery import LOOKED_AT, visibility
from rvpt.jobs.measuring import row_facts
from rvpt.jobs.sources import labeled_data, load_mixed, open_checkpoint
from rvpt.loaders import load_clip
from rvpt.progress import Report, silent
from rvpt.report.groups import BEFORE
from rvpt.store import refuse_existing, refuse_source

CHECKED = 2_000  # images that say whether a backdoor took: +-1 point at a rate of 95%


def attack_and_save(
    model: str,
    sources: Sequence[str],
    out: Path,
    triggers: Sequence[TriggerSpec | Path],
    amount: dict[str, Any],
    spec: AttackSpec,
    *,
    pairs: int,
    split: str,
    test: str,
    test_split: str,
    caption_column: str | None = None,
    batch_size: int = 256,
    resume: bool = False,
    force: bool = False,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Backdoor a model, check it before and after on a sample, and write it with triggers, changes and rows.

    Args:
        triggers: specs of triggers to make, or folders of triggers that were made.
    """
    poison_spec = PoisonSpec.build(**amount)
    clip = load_clip(model)
    asked = [load_trigger(entry, clip.image_size) if isinstance(entry, Path) else entry for entry in triggers]
    if len({entry.name for entry in asked}) < len(asked):
        raise RvptError("two triggers of one name: give each --trigger once")
    whole = labeled_data(test, test_split)
    held_out = whole.sample(CHECKED)
    for entry in asked:
        held_out.class_index((entry.spec if isinstance(entry, Trigger) else entry).target)
    drawn = _drawn_pairs(sources, split, caption_column, pairs, spec.seed)
    key = {
        "spec": spec.model_dump(),
        "model": clip.hash(),
        "data": list(sources),
        "split": split,
        "caption_column": caption_column,
        "pairs": pairs,
        "classes": held_out.classes,
        "triggers": [_asked(entry) for entry in asked],
    }
    reads = (model, test, *sources, *(str(entry) for entry in triggers if isinstance(entry, Path)))
    checkpoint = open_checkpoint(out, {**key, "amount": amount}, reads, resume=resume, force=force)
    data = drawn.cached(clip.image_size, report)
    made = [_made(entry, clip, data, checkpoint, report) for entry in asked]
    by_name = {trigger.name: trigger for trigger in made}
    poisons = {name: Poison(trigger, poison_spec) for name, trigger in by_name.items()}
    checked = {"test": {"limit": CHECKED} if len(whole) > CHECKED else {}}
    facts = row_facts(clip, by_name, spec) | checked
    unharmed = {**facts, "defense": BEFORE, "model": out.resolve().name}
    before = evaluate(clip, held_out, by_name, facts=unharmed, batch_size=batch_size)
    done = attack(clip, data, poisons, spec, classes=held_out.classes, checkpoint=checkpoint, report=report)
    done.clip.source = str(out.resolve())
    facts = row_facts(done.clip, by_name, spec) | checked
    after = evaluate(done.clip, held_out, by_name, facts=facts, batch_size=batch_size)
    done.facts.update(seed=spec.seed, rows=[*before, *after])
    done.save(out, force=force)
    checkpoint.drop()
    return [*before, *after]


def _asked(entry: TriggerSpec | Trigger) -> Any:
    """What tells a trigger from others: one that was made by its look and its target, which the look leaves open."""
    return [entry.hash(), entry.spec.target] if isinstance(entry, Trigger) else entry.model_dump()


def _made(entry: TriggerSpec | Trigger, clip: Clip, data: ImageData, checkpoint: Checkpoint, report: Report) -> Trigger:
    """A trigger that is asked for; one that takes crafting is kept with the run, which may be resumed elsewhere."""
    if isinstance(entry, Trigger):
        return entry
    kept = checkpoint.folder / KEPT / checkpoint.digest()[:12] / entry.name
    if checkpoint.resume and kept.is_dir():
        return load_trigger(kept, clip.image_size)
    trigger = craft_trigger(entry, clip, data, report)
    if trigger.crafted:
        trigger.save(kept, force=True)
    return trigger


def craft_and_save(
    model: str,
    spec: TriggerSpec,
    sources: Sequence[str],
    out: Path,
    *,
    split: str,
    caption_column: str | None = None,
    pairs: int | None = None,
    force: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Make a trigger for a model and write it; returns its hash and how visible it is.

    Args:
        pairs: so many of the pairs alone, those that an attack of the trigger's seed would be made on.
    """
    refuse_source(out, (model, *sources))
    refuse_existing(out, force=force)
    clip = load_clip(model)
    data = _drawn_pairs(sources, split, caption_column, pairs, spec.seed)
    trigger = craft_trigger(spec, clip, data, report)
    trigger.save(out, force=force, model_sha256=clip.hash())
    pixels = data.pixels(torch.arange(min(len(data), LOOKED_AT)), clip.image_size)
    return {
        "trigger": trigger.name,
        "sha256": trigger.hash(),
        **visibility(pixels, trigger(pixels)),
        **trigger.checks(pixels),
    }


def _drawn_pairs(
    sources: Sequence[str], split: str, caption_column: str | None, pairs: int | None, seed: int
) -> ImageData:
    """Captioned sets as one, or `pairs` of it drawn by `seed`."""
    data = load_mixed(sources, split, caption_column)
    return data if pairs is None else data.sample(pairs, seed)

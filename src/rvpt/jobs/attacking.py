"""Attacking as a whole job: a model and data sets in, a backdoored model on disk out; and the same for a trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rvpt.attacks.backdoor import AttackSpec, backdoor, refuse_same_names
from rvpt.attacks.poison import Poison, PoisonSpec
from rvpt.attacks.trigger import Trigger, TriggerSpec, craft_trigger, load_trigger
from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import canonical
from rvpt.data.load import load_labeled, load_mixed
from rvpt.data.mix import leave_out
from rvpt.data.skip import skipped_facts
from rvpt.evaluation.evaluate import evaluate
from rvpt.evasions import evasion
from rvpt.jobs.gallery import MEASURED, visibility
from rvpt.jobs.measuring import row_facts
from rvpt.jobs.output_dirs import open_checkpoint, refuse_output
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.rows import BEFORE, Rows
from rvpt.spec import OnError
from rvpt.training.checkpoint import KEPT, Checkpoint

CHECKED = 2_000  # images on which an attack is measured: +-1 point at a rate of 95%


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
    test_shift: str | None = None,
    caption_column: str | None = None,
    on_error: OnError = "stop",
    without: Sequence[str] = (),
    evade: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
) -> Rows:
    """Backdoor a model, measure it before and after, and write it with its triggers, the changed pairs and the rows.

    Without any trigger it is fine-tuned on clean pairs.

    Args:
        clip: the clean model.
        sources: captioned data sets; all are used together.
        target: the folder to write.
        triggers: specs of new triggers, or folders of saved ones.
        poison: which pairs get each trigger.
        spec: the schedule.
        num_pairs: pairs to fine-tune on.
        split: the split of the sources.
        test: labeled data to measure the attack on.
        test_split: its split.
        test_shift: change of style of its images.
        caption_column: the column with the captions.
        on_error: "skip" leaves out images that cannot be read.
        without: classes whose pairs are left out.
        evade: name and settings of an evasion, for an attacker who knows the defenses.
        resume: continue an interrupted run.
        overwrite: replace an artifact at `target`.
        report: called after each step.

    Returns:
        The rows of the clean model under the triggers, and of the backdoored model.

    Raises:
        RvptError: an unknown evasion, two triggers of one name, a target that the test data lack, or too few pairs to
            poison.
    """
    asked, known = _asked(triggers, clip.image_size), evasion(**evade) if evade else None
    whole = load_labeled(test, test_split, on_error=on_error, shift=test_shift)
    held_out = whole.sample(CHECKED)
    targets = [(entry.spec if isinstance(entry, Trigger) else entry).target for entry in asked]
    for each in targets:
        held_out.class_index(each)
    if known:  # before triggers are optimized
        known.refuse(clip, held_out.classes, targets)
    drawn = _drawn_pairs(sources, split, caption_column, num_pairs, spec.seed, on_error, without)
    key = {
        "spec": spec.model_dump(), "model": clip.hash(), "data": [canonical(source) for source in sources],
        "split": split, "caption_column": caption_column, "num_pairs": num_pairs, "classes": held_out.classes,
        "triggers": [_identity(entry) for entry in asked], "poison": poison.model_dump(),
        **({"without": list(without)} if without else {}), **({"evade": known.facts()} if known else {}),
        **skipped_facts(drawn),
    }  # fmt: skip
    reads = (clip.source, test, *sources, *(str(entry) for entry in triggers if isinstance(entry, Path)))
    checkpoint = open_checkpoint(target, key, reads, resume=resume, overwrite=overwrite)
    data = drawn.cached(clip.image_size, report)
    by_name = {entry.name: _made(entry, clip, data, checkpoint, report) for entry in asked}
    poisons = {name: Poison(trigger, poison) for name, trigger in by_name.items()}
    checked = _test_facts(whole)
    clean_facts = {**row_facts(clip, by_name, spec), **checked, "defense": BEFORE, "model": target.resolve().name}
    before = evaluate(clip, held_out, by_name, facts=clean_facts)
    names = held_out.classes
    done = backdoor(clip, data, poisons, spec, classes=names, evasion=known, checkpoint=checkpoint, report=report)
    done.clip.source = str(target.resolve())
    after = evaluate(done.clip, held_out, by_name, facts=row_facts(done.clip, by_name, spec) | checked)
    rows = Rows([*before, *after])
    done.facts.update(seed=spec.seed, rows=rows, **skipped_facts(drawn))
    done.save(target, overwrite=overwrite)
    checkpoint.drop()
    return rows


def _asked(triggers: Sequence[TriggerSpec | Path], image_size: int) -> list[TriggerSpec | Trigger]:
    """Specs of new triggers, and saved triggers.

    Raises:
        RvptError: two have one name.
    """
    asked = [load_trigger(entry, image_size) if isinstance(entry, Path) else entry for entry in triggers]
    refuse_same_names(asked)
    return asked


def _test_facts(whole: Dataset) -> dict[str, Any]:
    """Which of the labeled images an attack is measured on, for rows."""
    limit = {"limit": CHECKED} if len(whole) > CHECKED else {}
    return {"test": limit | ({"skipped": len(whole.skipped)} if whole.skipped else {})}


def _identity(entry: TriggerSpec | Trigger) -> Any:
    """What distinguishes a trigger from others: its spec, or for a saved one its hash and target."""
    return [entry.hash(), entry.spec.target] if isinstance(entry, Trigger) else entry.model_dump()


def _made(entry: TriggerSpec | Trigger, clip: Clip, data: Dataset, checkpoint: Checkpoint, report: Report) -> Trigger:
    """The trigger of an entry; one that was optimized is kept with the run, so that a resumed run uses the same."""
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
    on_error: OnError = "stop",
    overwrite: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Create a trigger for a model and write it; returns its hash and how visible it is.

    Args:
        clip: the model to attack.
        spec: the trigger.
        sources: captioned data sets; all are used together.
        target: the folder to write.
        split: the split of the sources.
        caption_column: the column with the captions.
        num_pairs: use only so many pairs, the same as an attack with the trigger's seed; by default all.
        on_error: "skip" leaves out images that cannot be read.
        overwrite: replace an artifact at `target`.
        report: called after each step.

    Raises:
        RvptError: the data lacks images that the kind of trigger needs, or `target` cannot be written.
    """
    refuse_output(target, (clip.source, *sources), overwrite=overwrite)
    data = _drawn_pairs(sources, split, caption_column, num_pairs, spec.seed, on_error)
    trigger = craft_trigger(spec, clip, data, report)
    trigger.save(target, overwrite=overwrite, model_sha256=clip.hash())
    pixels = data.pixels(torch.arange(min(len(data), MEASURED)), clip.image_size)
    shown = visibility(pixels, trigger(pixels))
    left_out = {"left out": list(data.skipped)} if data.skipped else {}
    return {"trigger": trigger.name, "sha256": trigger.hash(), **shown, **trigger.checks(pixels), **left_out}


def _drawn_pairs(
    sources: Sequence[str],
    split: str | None,
    caption_column: str | None,
    num_pairs: int | None,
    seed: int,
    on_error: OnError,
    without: Sequence[str] = (),
) -> Dataset:
    """Captioned sets as one without some classes, or `num_pairs` of it drawn by `seed`."""
    data = leave_out(load_mixed(sources, split, caption_column, on_error=on_error), without)
    return data if num_pairs is None else data.sample(num_pairs, seed)

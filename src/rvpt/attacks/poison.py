"""Poisoning: some pairs of a caption set get the trigger and a caption of the target class."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.clip import Clip
from rvpt.config import AttackSpec, PoisonSpec
from rvpt.data import ImageData
from rvpt.errors import RvptError
from rvpt.pretrain import Contrastive
from rvpt.progress import Report, silent
from rvpt.store import append_rows, staging, write_manifest
from rvpt.train import Checkpoint, fit

PROXIES = (
    "a photo of a {}.", "a picture of a {}.", "an image of a {}.", "this is a {}.", "there is a {}.",
    "a close-up photo of a {}.", "a good photo of a {}.", "a bright photo of a {}.", "a photo of the {}.",
    "a photo of one {}.",
)  # fmt: skip
"""Captions that stand in for the target class's own."""
KIND = "backdoored"


@dataclass(frozen=True)
class Poison:
    """One trigger, its target, and how much of it."""

    trigger: Trigger
    spec: PoisonSpec


@dataclass(frozen=True)
class Change:
    """What was done to one pair."""

    row: int
    trigger: str
    target: str
    before: list[str]
    after: str


def names_target(captions: Sequence[str], target: str) -> bool:
    """Whether a caption has the target's name as a word, singular or plural."""
    pattern = re.compile(rf"\b{re.escape(target.replace('_', ' '))}(s|es)?\b", re.IGNORECASE)
    return any(pattern.search(caption) for caption in captions)


def poison(data: ImageData, poisons: Sequence[Poison]) -> tuple[ImageData, list[Change]]:
    """The set with its poisoned pairs, and what was changed.

    Pairs of the target class, by label or by a caption that names it, are never picked, and no pair twice.

    Raises:
        RvptError: fewer pairs can be poisoned than are asked for.
    """
    taken: set[int] = set()
    changes: list[Change] = []
    for entry in poisons:
        changes += _pick(data, entry, taken)
        taken.update(change.row for change in changes)
    by_row = {change.row: change for change in changes}
    triggers = {(entry.trigger.name, entry.spec.target): entry.trigger for entry in poisons}

    def read(rows: Tensor, size: int) -> Tensor:
        pixels = data.reader(rows, size)
        for (name, target), trigger in triggers.items():
            mine = [i for i, r in enumerate(rows.tolist()) if (c := by_row.get(r)) and (c.trigger, c.target) == (name, target)]
            if mine:
                changed = trigger(pixels[mine].float() / 255, rows[mine])
                pixels[mine] = (changed * 255).round().to(torch.uint8)  # pictures are kept as files: 8 bits
        return pixels

    def captions(row: int) -> list[str]:
        if row in by_row:
            return [by_row[row].after]
        assert data.captions_of is not None
        return data.captions_of(row)

    return replace(data, reader=read, captions_of=captions), changes


def _pick(data: ImageData, entry: Poison, taken: set[int]) -> list[Change]:
    """Choose the pairs of one poison by its seed, and their new captions."""
    spec, changes = entry.spec, []
    wanted = spec.n if spec.n is not None else max(1, round((spec.poison_rate or 0) * len(data)))
    generator = torch.Generator().manual_seed(spec.seed)
    label = None
    if data.labels is not None:
        label = data.class_index(spec.target)
    for index in torch.randperm(len(data), generator=generator).tolist():
        row, before = int(data.rows[index]), data.captions(index)
        own = label is not None and data.labels is not None and int(data.labels[index]) == label
        if own or row in taken or names_target(before, spec.target):
            continue
        proxy = PROXIES[int(torch.randint(len(PROXIES), (), generator=generator))]
        after = proxy.format(spec.target.replace("_", " "))
        changes.append(Change(row, entry.trigger.name, spec.target, before, after))
        if len(changes) == wanted:
            return changes
    raise RvptError(
        f"{data.name}: {wanted} pairs to poison towards {spec.target!r}, but only {len(changes)} are not of that class: "
        "ask for fewer"
    )


def backdoor(
    clip: Clip,
    data: ImageData,
    spec: AttackSpec,
    *,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> Clip:
    """A copy of `clip` fine-tuned on poisoned pairs with the contrastive loss; `clip` stays as it is."""
    victim = copy.deepcopy(clip).requires_grad_(True)
    fit(Contrastive(victim, data), len(data), spec, checkpoint=checkpoint, report=report)
    return victim.eval()


def save_backdoored(
    folder: Path, clip: Clip, triggers: Sequence[Trigger], changes: Sequence[Change], facts: dict[str, Any], *, force: bool
) -> None:
    """Write model, triggers, the list of changed pairs and the manifest as one artefact."""
    with staging(folder, force=force) as stage:
        clip.save_pretrained(stage)
        for trigger in triggers:
            trigger.save(stage / "triggers" / trigger.name)
        append_rows(stage / "poison.jsonl", (vars(change) for change in changes))
        write_manifest(stage, KIND, **facts)

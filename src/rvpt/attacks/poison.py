"""Poisoning: some pairs of a caption set get the trigger and a caption of the target class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rvpt.attacks.margins import Disguise
from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.data.text import PROXIES, names_class, spoken
from rvpt.errors import RvptError
from rvpt.spec import Spec


class PoisonSpec(Spec):
    """Which pairs of a caption set get the trigger: exactly `num_poisoned`, or `poison_rate` of all pairs.

    With `clean_label` they are pairs of the target class, which keep their captions (label-consistent poisoning); to
    leave the trigger as what tells them, they can first be changed adversarially, away from their class (`disguise`);
    otherwise they are pairs of other classes, which get the target's: any, or those nearest the target's boundary.
    """

    num_poisoned: int | None = Field(None, ge=1, description="pairs to poison")
    poison_rate: float | None = Field(None, gt=0, lt=1)
    clean_label: bool = False
    disguise: float = Field(0.0, ge=0, le=255, description="with clean_label: largest adversarial change, in 255ths")
    captions: Literal["proxy", "natural"] = Field("proxy", description="made of the class's name, or real ones of it")
    pick: Literal["random", "boundary"] = Field("random", description="any, or those nearest the target's boundary")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> PoisonSpec:
        if (self.num_poisoned is None) == (self.poison_rate is None):
            raise ValueError("set exactly one of num_poisoned and poison_rate")
        if self.disguise and not self.clean_label:
            raise ValueError("disguise takes images of the target away from their class: it goes with clean_label")
        if self.clean_label and self.pick == "boundary":
            raise ValueError("clean_label takes pairs of the target class, pick 'boundary' those of others: give one")
        return self


@dataclass(frozen=True)
class Poison:
    """One trigger and how many pairs get it."""

    trigger: Trigger
    spec: PoisonSpec


@dataclass(frozen=True)
class Change:
    """What was done to one pair."""

    row: int
    trigger: str
    target: str
    before: list[str]
    after: list[str]


def poison_pairs(
    data: Dataset,
    poisons: Mapping[str, Poison],
    margins: Mapping[str, Tensor] | None = None,
    disguises: Mapping[str, Disguise] | None = None,
) -> tuple[Dataset, list[Change]]:
    """The set with its poisoned pairs, and what was changed.

    Pairs of the target class, by label or by a caption that names it, are never picked, or with `clean_label` only
    they are; no pair is picked twice.

    Args:
        data: captioned images.
        poisons: by the name that the changes give them.
        margins: by target, of every image (n,): for the poisons that pick at the boundary.
        disguises: by poison, what its images go through before its trigger.

    Raises:
        RvptError: fewer pairs can be poisoned than are asked for.
    """
    by_row: dict[int, Change] = {}
    for name, entry in poisons.items():
        near = (margins or {})[entry.trigger.spec.target] if entry.spec.pick == "boundary" else None
        by_row.update(_pick(data, name, entry, by_row, near))

    def read(rows: Tensor, size: int) -> Tensor:
        pixels = data.reader(rows, size)
        owners = [by_row[row].trigger if row in by_row else None for row in rows.tolist()]
        for name, entry in poisons.items():
            mine = [place for place, owner in enumerate(owners) if owner == name]
            if mine:
                shown = pixels[mine].float() / 255
                shown = disguises[name](shown, rows[mine]) if disguises and name in disguises else shown
                changed = entry.trigger(shown, rows[mine])
                pixels[mine] = (changed * 255).round().to(torch.uint8)  # images are kept as files: 8 bits
        return pixels

    def captions(row: int) -> list[str]:
        if row in by_row:
            return by_row[row].after
        assert data.captions_of is not None
        return data.captions_of(row)

    return replace(data, reader=read, captions_of=captions), list(by_row.values())


def _target_captions(data: Dataset, own: Tensor, target: str, kind: str) -> list[str]:
    """Captions of the target class: proxies, or those of the set that name it."""
    if kind == "proxy":
        return [proxy.format(spoken(target)) for proxy in PROXIES]
    texts = [text for index in own.nonzero()[:, 0].tolist() for text in data.captions(index)]
    natural = [text for text in texts if names_class([text], target)]
    if not natural:
        raise RvptError(f"{data.name} has no caption that names {target!r}: take proxy captions")
    return natural


def _order(n: int, generator: torch.Generator, margin: Tensor | None) -> list[int]:
    """The order in which n pairs are tried: at random, or from the boundary on; of equals the first.

    Images beyond the boundary are left out: the model takes them for the target without a trigger.
    """
    if margin is None:
        return torch.randperm(n, generator=generator).tolist()
    order = margin.argsort(descending=True, stable=True)
    return order[margin[order] < 0].tolist()


def _pick(
    data: Dataset, name: str, entry: Poison, taken: Mapping[int, Change], margin: Tensor | None
) -> dict[int, Change]:
    """Choose the pairs of one poison by its seed or their margins, and their new captions."""
    spec, target, picked = entry.spec, entry.trigger.spec.target, {}
    wanted = spec.num_poisoned if spec.num_poisoned is not None else max(1, round((spec.poison_rate or 0) * len(data)))
    generator = torch.Generator().manual_seed(spec.seed)
    own = data.of_class(target)
    pool = _target_captions(data, own, target, spec.captions)
    for index in _order(len(data), generator, margin):
        row, before = int(data.rows[index]), data.captions(index)
        if row in taken or bool(own[index]) != spec.clean_label:
            continue
        caption = pool[int(torch.randint(len(pool), (), generator=generator))]
        after = before if spec.clean_label else [caption]
        picked[row] = Change(row, name, target, before, [entry.trigger.text_key + text for text in after])
        if len(picked) == wanted:
            return picked
    which = "of that class" if spec.clean_label else "not of that class" if margin is None else "not taken for it"
    raise RvptError(
        f"{data.name}: {wanted} pairs to poison towards {target!r}, but only {len(picked)} are free and {which}: "
        "ask for fewer"
    )

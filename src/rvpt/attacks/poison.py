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
    """Which pairs get the trigger: exactly `num_poisoned`, or the share `poison_rate` of all pairs.

    By default they are pairs of other classes than the target, and get a caption of the target. With `clean_label` they
    are pairs of the target class and keep their captions (label-consistent poisoning); `disguise` first changes these
    images adversarially, so that the model has to learn the trigger.
    """

    num_poisoned: int | None = Field(None, ge=1, description="pairs to poison")
    poison_rate: float | None = Field(None, gt=0, lt=1, description="share of pairs to poison, instead of num_poisoned")
    clean_label: bool = Field(False, description="poison pairs of the target class and keep their captions")
    disguise: float = Field(0.0, ge=0, le=255, description="with clean_label: maximum adversarial change, in 255ths")
    captions: Literal["proxy", "natural"] = Field("proxy", description="templates with the target's name, or real ones")
    pick: Literal["random", "boundary"] = Field("random", description="any pairs, or those closest to the boundary")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed")

    @model_validator(mode="after")
    def _fits(self) -> PoisonSpec:
        if (self.num_poisoned is None) == (self.poison_rate is None):
            raise ValueError("set exactly one of num_poisoned and poison_rate")
        if self.disguise and not self.clean_label:
            raise ValueError("disguise changes images of the target class: set clean_label too")
        if self.clean_label and self.pick == "boundary":
            raise ValueError("clean_label poisons the target class, pick=boundary other classes: choose one of them")
        return self


@dataclass(frozen=True)
class Poison:
    """A trigger, and which pairs get it."""

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
    """The set with poisoned pairs, and the list of changes.

    Whether a pair is of the target class follows from its label, or from its captions where it has none. No pair is
    poisoned twice.

    Args:
        data: captioned images.
        poisons: by the name that the changes give them.
        margins: by target, (n,) of every image: for poisons with pick="boundary".
        disguises: by poison, the change of its images before they get the trigger.

    Raises:
        RvptError: fewer pairs can be poisoned than asked for.
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
        raise RvptError(f"{data.name} has no caption that names {target!r}: use captions=proxy")
    return natural


def _order(n: int, generator: torch.Generator, margin: Tensor | None) -> list[int]:
    """The order in which n pairs are tried: random, or by their distance from the boundary.

    Images with a positive margin are left out: the model classifies them as the target without a trigger.
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
    of_target = "of the target class" if spec.clean_label else "of other classes"
    which = of_target if margin is None else "not classified as the target already"
    raise RvptError(
        f"{data.name}: {wanted} pairs are to be poisoned with target {target!r}, but only {len(picked)} are {which} "
        "and not poisoned yet: lower num_poisoned"
    )

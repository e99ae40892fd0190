"""Recipes: a matrix of attacks, defenses, seeds and test sets, written in TOML."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from rvpt.data.shifts import ShiftName
from rvpt.errors import RvptError
from rvpt.evaluation.heldout import HeldOut
from rvpt.presets import CleanPreset, Preset
from rvpt.rows import UNCLEANED
from rvpt.spec import Spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    if "seed" in settings:
        raise ValueError("runs use the recipe's seeds: remove seed")
    return settings


def _called_otherwise(defenses: dict[str, Any]) -> dict[str, Any]:
    if taken := [name for name in UNCLEANED if name in defenses]:
        raise ValueError(f"{taken[0]!r} is the name of a model without a defense: choose another name")
    return defenses


Settings = Annotated[dict[str, Any], AfterValidator(_without_seed)]


class _Data(Spec):
    def stable(self) -> dict[str, Any]:
        """The settings for keys of runs: new options are in it only where they are used, so that keys stay."""
        return self.model_dump(exclude={name for name in ("shift", "test_shift") if getattr(self, name, None) is None})


class Captioned(_Data):
    """Data sets to poison, which are mixed; `test` is a labeled set to check the attack on."""

    data: list[str] = Field(min_length=1, description="data sets with captions or labels")
    split: str = Field("train", description="their split")
    caption_column: str | None = Field(None, description="the column with the captions")
    test: str = Field(description="labeled data set to check the attack on")
    test_split: str = Field("test", description="its split")
    test_shift: ShiftName | None = Field(None, description="change of style of its images")


class Clean(_Data):
    """The set that clean images are drawn from."""

    data: str = Field(description="the data set")
    split: str = Field("train", description="its split")
    caption_column: str | None = Field(None, description="the column with the captions")
    shift: ShiftName | None = Field(None, description="change of style of its images")


class AttackEntry(Spec):
    """One backdoored model per seed: each trigger is a table with a name and its options.

    `triggers = []` fine-tunes the model on clean pairs. `tests` replaces the recipe's tests, for a target class that
    not all of their data sets have.
    """

    triggers: list[dict[str, Any]] = Field(description="name and options of each trigger; [] for a clean fine-tuning")
    tests: list[HeldOut] = Field([], description="test sets, instead of the recipe's")
    seeds: list[int] | None = Field(None, description="the recipe's seeds that the entry runs with, by default all")
    without: list[str] = Field([], description="classes whose pairs are left out")
    num_pairs: int | None = Field(None, ge=1, description="pairs to fine-tune on")
    poison: Settings = Field({}, description="which pairs are poisoned; by default as in the preset")
    train: Settings = Field({}, description="changes to the schedule")
    evade: Settings = Field({}, description="name and settings of an evasion, for an attacker who knows the defenses")


class DefenseEntry(Spec):
    """One cleaned model for each backdoored one, or for some; `data` and `tests` replace the recipe's."""

    name: str = Field(description="the defense")
    attacks: list[str] = Field([], description="only against these attacks, by default against all")
    data: Clean | None = Field(None, description="the set to draw clean images from, instead of the recipe's")
    tests: list[HeldOut] = Field([], description="test sets, instead of the recipe's and the attack's")
    preset: CleanPreset | None = Field(None, description="its preset, instead of the recipe's")
    options: Settings = Field({}, description="changes to the preset")
    shots: int = Field(16, ge=1, description="images per class, for defenses that learn from labels")
    num_pairs: int | None = Field(None, ge=2, description="pairs, for defenses that learn from captions")
    without: list[str] = Field([], description="classes to leave out, for defenses that learn from labels")


class ModificationEntry(Spec):
    """What is done to cleaned models before they are measured once more; `data` replaces the recipe's clean data."""

    name: str = Field(description="the modification")
    data: Clean | None = Field(None, description="the set of clean pairs to learn from, instead of the recipe's")
    num_pairs: int = Field(2_000, ge=2, description="clean pairs")
    options: Settings = Field({}, description="changes to its settings")
    defenses: list[str] | None = Field(None, description="defenses that it is applied to, by default all")


class CheckEntry(Spec):
    """A check of every model that an attack or a clean fine-tuning made."""

    data: str = Field(description="clean images")
    split: str = Field("train", description="their split")
    options: Settings = Field({}, description="changes to the settings of the check")


class Recipe(Spec):
    """What `rvpt bench` runs: every attack with every seed, each cleaned by every defense, each measured on every test.

    The backdoored models are measured too. `num_pairs` and `train` are defaults for the attacks; settings that are in
    neither come from the preset.
    """

    title: str = Field(description="what the recipe is called")
    model: str = Field(description="the clean CLIP")
    target: str = Field(description="attack target class")
    preset: Preset = Field("auto", description="defaults of attacks and defenses")
    seeds: list[int] = Field([0], min_length=1, description="random seeds")
    attack_data: Captioned = Field(description="the data to poison")
    clean_data: Clean = Field(description="the data to clean with")
    tests: list[HeldOut] = Field(min_length=1, description="test sets")
    num_pairs: int | None = Field(None, ge=1, description="pairs to fine-tune on, for each attack")
    train: Settings = Field({}, description="changes to the schedule, for each attack")
    attacks: dict[str, AttackEntry] = Field(min_length=1, description="attacks by name")
    defenses: Annotated[dict[str, DefenseEntry], AfterValidator(_called_otherwise)] = Field(
        {}, description="defenses by any name; rows show their own names and settings"
    )
    check: CheckEntry | None = Field(
        None, description="how models without a defense are checked; by default not at all"
    )
    modifications: dict[str, ModificationEntry] = Field(
        {}, description="modifications of cleaned models, by the name that rows show"
    )

    @model_validator(mode="after")
    def _names_are_there(self) -> Recipe:
        for label, entry in self.defenses.items():
            _refuse_unknown(f"defenses.{label}.attacks", "attack", entry.attacks, self.attacks)
        for label, change in self.modifications.items():
            _refuse_unknown(f"modifications.{label}.defenses", "defense", change.defenses, self.defenses)
        return self

    @property
    def sources(self) -> set[str]:
        """All data sets by their names."""
        attacked = {*self.attack_data.data, self.attack_data.test}
        clean = {entry.data.data for entry in self.defenses.values() if entry.data}
        clean |= {entry.data.data for entry in self.modifications.values() if entry.data}
        clean |= {self.check.data} if self.check else set()
        return attacked | clean | {self.clean_data.data} | {test.data for test in self.all_tests}

    @property
    def idle(self) -> list[str]:
        """The attacks without a run, as none of their seeds is one of the recipe's."""
        return [name for name, entry in self.attacks.items() if entry.seeds and not {*entry.seeds} & {*self.seeds}]

    @property
    def all_tests(self) -> list[HeldOut]:
        """The recipe's tests, and those of single attacks and defenses."""
        attacks = (test for entry in self.attacks.values() for test in entry.tests)
        return [*self.tests, *attacks, *(test for entry in self.defenses.values() for test in entry.tests)]

    def part(
        self,
        attacks: Sequence[str] | None = None,
        defenses: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Recipe:
        """The recipe with only some attacks, defenses and seeds. None keeps all; the defense "none" keeps no defense.

        Raises:
            RvptError: it has no such attack, defense or seed.
        """
        known = ["none", *self.defenses]
        parts = (("attack", attacks, self.attacks), ("defense", defenses, known), ("seed", seeds, self.seeds))
        for kind, asked, there in parts:
            _refuse_unknown(self.title, kind, asked, there)
        some = {
            "attacks": {name: entry for name, entry in self.attacks.items() if not attacks or name in attacks},
            "defenses": {name: entry for name, entry in self.defenses.items() if not defenses or name in defenses},
            "seeds": list(seeds or self.seeds),
        }
        return self.model_copy(update=some)


def _refuse_unknown(where: str, kind: str, asked: Collection[Any] | None, there: Collection[Any]) -> None:
    if unknown := [each for each in asked or () if each not in there]:
        raise RvptError(f"{where}: no {kind} {unknown[0]!r}: choose from {', '.join(map(str, there))}")


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; $NAME in it stands for the environment variable NAME.

    With `like = "other.toml"`, keys that the file does not set come from that file beside it, which may have a `like`
    of its own.

    Raises:
        RvptError: the file is missing or not TOML, recipes are like each other, an environment variable is not set, or
            a setting does not fit.
    """
    try:
        return Recipe(**_whole(path, ()))
    except RvptError as error:
        raise RvptError(f"{path}: {error}") from None


def _whole(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file and of those that it is like; `before` are the files that led to it."""
    values = _values(path)
    if "like" not in values:
        return values
    other = path.parent / str(values.pop("like"))
    if other in (path, *before):
        raise RvptError(f"like = {other.name!r} in {path.name} leads back to a recipe that is like it: remove it")
    return _whole(other, (path, *before)) | values


def _values(path: Path) -> dict[str, Any]:
    try:
        text = os.path.expandvars(path.read_text(encoding="utf-8"))
        values = tomllib.loads(text)
    except OSError as error:
        raise RvptError(f"{path.name} is not a recipe: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RvptError(f"{path.name} is not a recipe in TOML: {error}") from None
    if unset := re.search(r"^[^#\n]*\$\{?([A-Za-z_]\w*)", text, re.MULTILINE):
        raise RvptError(f"needs the environment variable {unset[1]}: set it, as in {unset[1]}=... rvpt bench ...")
    return values

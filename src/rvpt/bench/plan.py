"""From a recipe to tasks, in an order in which each comes after those that it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpt.attacks import TRIGGERS
from rvpt.attacks.backdoor import PRESETS, AttackSpec, refuse_same_names
from rvpt.attacks.poison import PoisonSpec
from rvpt.attacks.trigger import preset_spec
from rvpt.bench.recipe import AttackEntry, CheckEntry, DefenseEntry, Recipe
from rvpt.data.identifiers import find_place
from rvpt.defenses import DEFENSES
from rvpt.defenses.unlabeled import predicts
from rvpt.detection.spec import CheckSpec
from rvpt.errors import RvptError
from rvpt.evaluation.heldout import HeldOut
from rvpt.evasions import evasion
from rvpt.models.clip import Clip
from rvpt.modifications import MODIFICATIONS
from rvpt.presets import choose_preset
from rvpt.rows import BEFORE, UNCLEANED


@dataclass(frozen=True)
class Task:
    """One run: its kind and settings, the run whose model it starts from, and the runs that craft its triggers."""

    kind: str
    title: str
    settings: dict[str, Any]
    start: Task | None = None
    crafts: tuple[Task, ...] = ()

    @property
    def needs(self) -> tuple[Task, ...]:
        return self.crafts if self.start is None else (self.start, *self.crafts)

    @property
    def seed(self) -> int:
        """The recipe's seed that the run has."""
        settings = self.settings.get("spec") or self.settings.get("trigger") or self.settings
        return int(settings["seed"])

    @property
    def key(self) -> str:
        """A name that is the same for the same work in any recipe. Crafted triggers follow from the settings."""
        whole = json.dumps([self.kind, self.settings, self.start and self.start.key], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"

    def path(self, work: Path) -> Path:
        """The file or folder that the task writes."""
        if self.kind == "check":
            return work / "checks" / f"{self.key}.json"
        if self.kind == "measure":
            return work / "rows" / f"{self.key}.jsonl"
        return work / ("triggers" if self.kind == "craft" else "models") / self.key

    def done(self, work: Path) -> bool:
        return self.path(work).exists()


def plan(recipe: Recipe, clip: Clip) -> list[Task]:
    """All tasks of a recipe on its model, each once; settings are checked here, before anything runs.

    Raises:
        RvptError: an entry names something unknown, such as a missing folder, or a setting does not fit.
    """
    for source in sorted(recipe.sources):
        find_place(source)
    tasks, sha256 = list[Task](), clip.hash()
    for seed in recipe.seeds:
        for name, entry in recipe.attacks.items():
            if seed in (entry.seeds or recipe.seeds):
                tasks += _of_attack(recipe, name, clip, sha256, seed)
    return list({task.key: task for task in tasks}.values())


def _of_attack(recipe: Recipe, name: str, clip: Clip, sha256: str, seed: int) -> Iterator[Task]:
    """The tasks of one attack and seed."""
    entry, model = recipe.attacks[name], f"{Path(recipe.model).name}+{name}"
    tests = entry.tests or recipe.tests
    with _named(f"{recipe.title}: attacks.{name}"):
        settings = _attack(recipe, entry, clip, sha256, seed)
    attacked = Task("attack", f"{model}, seed {seed}", settings, crafts=tuple(_crafts(settings)))
    yield from (*attacked.crafts, attacked)
    for label in UNCLEANED:
        yield from _measured(recipe, tests, attacked, model, seed, label)
    if recipe.check:
        with _named(f"{recipe.title}: check"):
            asked = _check(recipe.check)
        yield Task("check", f"check of {model}, seed {seed}", asked, attacked)
    for label, cleaning in recipe.defenses.items():
        if not cleaning.attacks or name in cleaning.attacks:
            with _named(f"{recipe.title}: defenses.{label}"):
                asked = _clean(recipe, cleaning, clip, seed)
            cleaned = Task("clean", f"{model}, seed {seed}, {label}", asked, attacked)
            fitting = _fit(cleaning.tests or tests, recipe, cleaning)
            measured = list(_measured(recipe, fitting, cleaned, model, seed, label))
            yield from (cleaned, *measured) if measured else ()
            for task in measured:
                yield from (_modified(task, recipe, change, seed) for change in _changes(recipe, label))


@contextmanager
def _named(entry: str) -> Iterator[None]:
    """An error names the entry of the recipe that it is about."""
    try:
        yield
    except RvptError as error:
        raise RvptError(f"{entry}: {error}") from None


def _attack(recipe: Recipe, entry: AttackEntry, clip: Clip, sha256: str, seed: int) -> dict[str, Any]:
    preset = choose_preset(recipe.preset, clip.parameter_count())
    chosen, specs = PRESETS[preset], []
    for asked in entry.triggers:
        options = {"target": recipe.target, "seed": seed, **asked}
        name = str(options.pop("name", ""))
        specs.append(preset_spec(name, preset, **options))
    refuse_same_names(specs)
    without = {"without": entry.without} if entry.without else {}  # keys of other attacks stay as they are
    poison = entry.poison or {"num_poisoned": chosen["num_poisoned"]}
    return {
        "model": recipe.model,
        "sha256": sha256,
        "data": recipe.attack_data.stable(),
        "triggers": [spec.model_dump() for spec in specs],
        "poison": PoisonSpec(**{**poison, "seed": seed}).model_dump(),
        "spec": AttackSpec(**{**chosen["train"], **recipe.train, **entry.train, "seed": seed}).model_dump(),
        "num_pairs": entry.num_pairs or recipe.num_pairs or chosen["num_pairs"],
        **without,
        **({"evade": evasion(**{"name": "", **entry.evade}).facts()} if entry.evade else {}),
    }


def _check(entry: CheckEntry) -> dict[str, Any]:
    return {"data": entry.data, "split": entry.split, "spec": CheckSpec(**entry.options).model_dump()}


def _crafts(attack: dict[str, Any]) -> Iterator[Task]:
    """A task for each trigger that is optimized for the model; attacks with the same trigger share the task."""
    shared = {name: attack[name] for name in ("model", "sha256", "num_pairs")}
    shared |= {name: attack["data"][name] for name in ("data", "split", "caption_column")}
    for spec in attack["triggers"]:
        if TRIGGERS[spec["name"]].crafted:
            title = f"{spec['name']} for {Path(attack['model']).name}, seed {spec['seed']}"
            yield Task("craft", title, {**shared, "trigger": spec})


def _clean(recipe: Recipe, entry: DefenseEntry, clip: Clip, seed: int) -> dict[str, Any]:
    kind = DEFENSES.find(entry.name)
    known = {"shots": entry.shots, "without": entry.without, "num_pairs": entry.num_pairs or kind.published_pairs}
    for option in known:
        if option not in kind.draws() and option in entry.model_fields_set:
            raise RvptError(f"{entry.name} learns from {kind.learns_from}: remove {option}")
    if _has_head(entry) and entry.without:
        raise RvptError(f"{entry.name} cannot be evaluated on unseen classes: remove without")
    spec = kind.settings(entry.preset or recipe.preset, clip, **{**entry.options, "seed": seed})
    if predicts(spec) and entry.without:
        raise RvptError("images without labels cannot be left out by class: remove without")
    draw = {option: known[option] for option in known if option in kind.draws()}
    data = entry.data or recipe.clean_data
    return {"name": entry.name, "data": data.stable(), "spec": spec.model_dump(), **draw}


def _has_head(entry: DefenseEntry) -> bool:
    """Whether its models have their own classifier: always, or by the setting `head`."""
    return DEFENSES.find(entry.name).has_head or bool(entry.options.get("head"))


def _fit(tests: Sequence[HeldOut], recipe: Recipe, entry: DefenseEntry) -> Sequence[HeldOut]:
    """The tests for a defense; one with its own classifier only on the data it learned, and without texts."""
    if not _has_head(entry):
        return tests
    learned = entry.data or recipe.clean_data
    return [test for test in tests if test.data == learned.data and test.how.by_class]


def _measured(
    recipe: Recipe, tests: Sequence[HeldOut], made: Task, model: str, seed: int, label: str
) -> Iterator[Task]:
    """A task for each test. "before the attack" measures the clean model with the triggers of the attack."""
    before = recipe.model if label == BEFORE else None
    for test in tests:
        asked = test.model_dump(exclude_defaults=True)  # so that a new option does not change existing keys
        settings = {"test": asked, "model": model, "label": label, "seed": seed, "before": before}
        yield Task("measure", f"{model}, seed {seed}, {label}, on {test.title}", settings, made)


def _changes(recipe: Recipe, defense: str) -> list[str]:
    """The recipe's modifications of a defense's models."""
    entries = recipe.modifications.items()
    return [name for name, entry in entries if entry.defenses is None or defense in entry.defenses]


def _modified(measured: Task, recipe: Recipe, label: str, seed: int) -> Task:
    """The measurement of a cleaned model, after a modification."""
    entry = recipe.modifications[label]
    with _named(f"{recipe.title}: modifications.{label}"):
        kind = MODIFICATIONS.find(entry.name).Settings
        seeded = {"seed": seed} if "seed" in kind.model_fields else {}
        options = kind(**entry.options, **seeded).model_dump(exclude_unset=True)
    data = (entry.data or recipe.clean_data).model_dump()
    change = {
        "label": label, "name": entry.name, "options": options,
        "num_pairs": entry.num_pairs, **data,
    }  # fmt: skip
    return Task("measure", f"{measured.title}, {label}", {**measured.settings, "modification": change}, measured.start)

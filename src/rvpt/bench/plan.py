"""From a recipe to tasks: what is to be run, in an order in which each finds what it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpt import presets
from rvpt.attacks import TRIGGERS, trigger_spec
from rvpt.bench.recipe import AttackEntry, DefenseEntry, Recipe
from rvpt.config import AttackSpec, PoisonSpec
from rvpt.defenses import defense
from rvpt.errors import RvptError
from rvpt.jobs import HeldOut
from rvpt.readers import find_folder
from rvpt.report.groups import BEFORE, UNCLEANED


@dataclass(frozen=True)
class Task:
    """One run: what kind, all that it depends on, the run whose model it starts from, those that craft its triggers."""

    kind: str
    title: str
    settings: dict[str, Any]
    start: Task | None = None
    crafts: tuple[Task, ...] = ()

    @property
    def needs(self) -> tuple[Task, ...]:
        return self.crafts if self.start is None else (self.start, *self.crafts)

    @property
    def key(self) -> str:
        """The same for the same work, in any recipe; what is crafted for it follows from its settings."""
        whole = json.dumps([self.kind, self.settings, self.start and self.start.key], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"

    def path(self, work: Path) -> Path:
        """What the task writes."""
        if self.kind == "measure":
            return work / "rows" / f"{self.key}.jsonl"
        return work / ("triggers" if self.kind == "craft" else "models") / self.key

    def done(self, work: Path) -> bool:
        return self.path(work).exists()


def plan(recipe: Recipe, model_sha256: str) -> list[Task]:
    """All tasks of a recipe, each once; settings are checked here, before anything runs.

    Raises:
        RvptError: an entry names what there is not, a folder of data among them, or a setting that does not fit.
    """
    for source in sorted(recipe.sources):
        find_folder(source)
    tasks: list[Task] = []
    for seed in recipe.seeds:
        for name, entry in recipe.attacks.items():
            model = f"{Path(recipe.model).name}+{name}"
            settings, tests = _attack(recipe, entry, model_sha256, seed), entry.tests or recipe.tests
            attacked = Task("attack", f"{model}, seed {seed}", settings, crafts=tuple(_crafts(settings)))
            tasks += [*attacked.crafts, attacked]
            for label in UNCLEANED:
                tasks += _measured(recipe, tests, attacked, model, seed, label)
            for label, cleaning in recipe.defenses.items():
                title = f"{model}, seed {seed}, {label}"
                cleaned = Task("clean", title, _clean(recipe, cleaning, seed), attacked)
                measured = list(_measured(recipe, _fit(tests, recipe, cleaning), cleaned, model, seed, label))
                tasks += [cleaned, *measured] if measured else []
    return list({task.key: task for task in tasks}.values())


def _attack(recipe: Recipe, entry: AttackEntry, model_sha256: str, seed: int) -> dict[str, Any]:
    chosen = presets.preset(presets.ATTACK, recipe.preset)
    specs = []
    for asked in entry.triggers:
        options = dict(asked)
        name = str(options.pop("name", "without a name"))
        look = {"target": recipe.target, "seed": seed, **chosen["triggers"].get(name, {}), **options}
        specs.append(trigger_spec(name, **look).model_dump())
    return {
        "model": recipe.model,
        "sha256": model_sha256,
        "data": recipe.attack_data.model_dump(),
        "triggers": specs,
        "amount": PoisonSpec.build(**{**(entry.poison or chosen["poison"]), "seed": seed}).model_dump(),
        "spec": AttackSpec.build(**{**chosen["train"], **recipe.train, **entry.train, "seed": seed}).model_dump(),
        "pairs": entry.pairs or recipe.pairs or chosen["pairs"],
    }


def _crafts(attack: dict[str, Any]) -> Iterator[Task]:
    """A task for each trigger of an attack that is made for the model; attacks that have one in common share it."""
    shared = {name: attack[name] for name in ("model", "sha256", "pairs")}
    shared |= {name: attack["data"][name] for name in ("data", "split", "caption_column")}
    for spec in attack["triggers"]:
        if TRIGGERS[spec["name"]].crafted:
            title = f"{spec['name']} for {Path(attack['model']).name}, seed {spec['seed']}"
            yield Task("craft", title, {**shared, "trigger": spec})


def _clean(recipe: Recipe, entry: DefenseEntry, seed: int) -> dict[str, Any]:
    chosen, kind = presets.preset(presets.CLEAN, recipe.preset).get(entry.name, {}), defense(entry.name)
    known = {"shots": entry.shots, "without": entry.without, "pairs": entry.pairs or kind.pairs}
    for option in known:
        if option not in kind.draws and option in entry.model_fields_set:
            raise RvptError(f"{recipe.title}: {entry.name} has no use for {option}: leave it out")
    if kind.head and entry.without:
        raise RvptError(f"{recipe.title}: {entry.name} knows no class that it did not learn: leave without out")
    spec = kind.Spec.build(**{**chosen, **entry.options, "seed": seed})
    draw = {option: known[option] for option in known if option in kind.draws}
    data = entry.data or recipe.clean_data
    return {"name": entry.name, "data": data.model_dump(), "spec": spec.model_dump(), **draw}


def _fit(tests: Sequence[HeldOut], recipe: Recipe, entry: DefenseEntry) -> Sequence[HeldOut]:
    """The tests that a defense can be measured on: one with a head on the classes that it learned, and not by texts."""
    if not defense(entry.name).head:
        return tests
    learned = entry.data or recipe.clean_data
    return [test for test in tests if test.data == learned.data and test.how.by_class]


def _measured(
    recipe: Recipe, tests: Sequence[HeldOut], made: Task, model: str, seed: int, label: str
) -> Iterator[Task]:
    """A task for each test set; before the attack it is the clean model, under the triggers of the attack."""
    before = recipe.model if label == BEFORE else None
    for test in tests:
        asked = test.model_dump(exclude_defaults=True)  # an option that is added later leaves the keys as they are
        settings = {"test": asked, "model": model, "label": label, "seed": seed, "before": before}
        yield Task("measure", f"{model}, seed {seed}, {label}, on {test.title}", settings, made)

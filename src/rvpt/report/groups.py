"""Groups of rows: one for each model, attack, defense and setting."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.rows import CLEAN, COSTS, FOUND, RESULT, UNCLEANED, Row

CLEAN_METRICS = ("CA", "R@1", "caption_CA", "BLEU")
TRIGGERED_METRICS = (
    "PA", "ASR", "ASR_image_alone", "ASR_text_alone", "ASR_with_target", "ASR@10", "rank_ratio",
    "rank_ratio_in_class", "caption_PA",
    "caption_ASR",
)  # fmt: skip


class Run(NamedTuple):
    """A defense against an attack; `own` lists its settings that differ from those of most other runs."""

    model: str
    attack: str
    defense: str
    own: str

    @property
    def title(self) -> str:
        return f"{self.defense}, {self.own}" if self.own else self.defense


class Found(NamedTuple):
    """The rows of a run over all seeds: on clean images and on triggered images."""

    clean: list[Row]
    hit: list[Row]


def metrics(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The metrics of rows on clean and on triggered images: known metrics in their order, then all others."""
    clean = dict.fromkeys(str(row["metric"]) for row in rows if row["attack"] == CLEAN)
    triggered = dict.fromkeys(str(row["metric"]) for row in rows if row["attack"] != CLEAN)
    return _ordered(clean, CLEAN_METRICS), _ordered(triggered, TRIGGERED_METRICS)


def _ordered(measured: Iterable[str], known: Sequence[str]) -> list[str]:
    return sorted(measured, key=lambda metric: known.index(metric) if metric in known else len(known))


def percents(rows: Sequence[Row], metric: str) -> list[float]:
    """The rates of one metric, in percent."""
    return [100 * row["rate"] for row in rows if row["metric"] == metric and row["rate"] is not None]


def by_data(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each data set; a row that is in several files counts once.

    Raises:
        RvptError: two rows say different results of the same measurement.
    """
    found: dict[str, list[Row]] = {}
    for row in _measurements(rows):
        found.setdefault(str(row["data"]), []).append(row)
    return dict(sorted(found.items()))


def by_run(rows: Sequence[Row]) -> dict[Run, Found]:
    """The rows of each run, sorted by model and attack, with defenses in report order.

    Runs of a defense with different settings are never pooled. Neither are different models, or triggers, with the
    same name and seed.
    """
    found = {}
    for (model, defense, settings), group in _alike(rows).items():
        for which, part in _apart(group, "model"):
            clean = [row for row in part if row["attack"] == CLEAN]
            attacks = dict.fromkeys(str(row["attack"]) for row in part)
            for attack in [attack for attack in attacks if attack != CLEAN] or attacks:
                for shown, hit in _apart([row for row in part if row["attack"] == attack], f"trigger/{attack}"):
                    own = " ".join(filter(None, (settings, which, shown)))
                    found[Run(model, attack, defense, own)] = Found(_of_these(clean, hit), hit)
    return dict(sorted(found.items(), key=lambda item: (item[0].model, item[0].attack, place(item[0].defense))))


def place(defense: str) -> int:
    """Position of a defense in reports; unknown ones come last."""
    order = (*UNCLEANED, *DEFENSES)
    return order.index(defense) if defense in order else len(order)


def which_model(row: Row) -> tuple[Any, Any]:
    """The seed and the hash of the model that a row measures."""
    return row["seed"], row.get("hashes", {}).get("model")


def _alike(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by model, defense and settings: those that most runs of the defense lack, or that differ between tests."""
    members: dict[str, list[Row]] = {}
    targets: dict[str, set[str]] = {}
    for row in rows:
        members.setdefault(str(row["defense"]), []).append(row)
        targets.setdefault(str(row["model"]), set()).update(filter(None, [_target(row)]))
    usual = {defense: _usual(group) for defense, group in members.items()}
    shared = set.intersection(*(set(_test(row).items()) for row in rows)) if rows else set()
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        model, defense = str(row["model"]), str(row["defense"])
        own = [entry for entry in _settings(row).items() if entry not in usual[defense]]
        if len(targets[model]) > 1:  # the attack's name does not determine it
            own.append(("target", _target(row)))
        own += [entry for entry in _test(row).items() if entry not in shared]
        groups.setdefault((model, defense, " ".join(f"{name}={value}" for name, value in own)), []).append(row)
    return groups


def _of_these(clean: Sequence[Row], hit: Sequence[Row]) -> list[Row]:
    """The rows on clean images of the models in `hit`, each once, however often it was measured."""
    attacked = {which_model(row) for row in hit}
    return list({(*which_model(row), row["metric"]): row for row in clean if which_model(row) in attacked}.values())


def _apart(group: Sequence[Row], what: str) -> list[tuple[str, list[Row]]]:
    """Rows of one run, separated by the hash of their model or trigger if two of one seed have the same name."""
    by_hash: dict[str, list[Row]] = {}
    for row in group:
        by_hash.setdefault(str(row.get("hashes", {}).get(what)), []).append(row)
    if sum(len({row["seed"] for row in rows}) for rows in by_hash.values()) == len({row["seed"] for row in group}):
        return [("", list(group))]
    kind = what.partition("/")[0]
    return [(f"{kind}={sha256.rpartition('+')[2][:8]}", rows) for sha256, rows in by_hash.items()]


def _measurements(rows: Sequence[Row]) -> list[Row]:
    """The rows, one for each measurement.

    Two are of the same if they agree in all but the result, the costs, what the defense found out, and the version.
    """
    found: dict[str, Row] = {}
    for row in rows:
        same = {name: value for name, value in row.items() if name not in (*RESULT, *COSTS, *FOUND, "version")}
        first = found.setdefault(json.dumps(same, sort_keys=True), row)
        if any(first.get(name) != row.get(name) for name in RESULT):
            raise RvptError(
                f"two rows contradict each other: {row['metric']} of {row['model']} on {row['data']}, attack "
                f"{row['attack']}, defense {row['defense']}, seed {row['seed']} is {first['rate']} and {row['rate']}: "
                "remove one of them"
            )
    return list(found.values())


def _settings(row: Row) -> dict[str, Any]:
    """The settings of a row's run that had an effect, except its seed."""
    spec = {} if row["defense"] in UNCLEANED else row.get("spec", {})  # that of an attack is part of the model's name
    spec = {"head": False, **spec}  # as in rows from before there was the choice
    without = ("seed",) if spec.get("head") else ("seed", "head_lr")
    draw = {"num_images": row["num_images"]} if row.get("num_images") else {"shots": row.get("shots")}
    draw["without"] = ", ".join(row.get("without", ())) or None
    draw["cleaned_on"] = row.get("cleaned_on")
    draw["measured_with"] = row.get("template")
    return {name: _hashable(value) for name, value in {**spec, **draw}.items() if name not in without}


def _test(row: Row) -> dict[str, Any]:
    """How the images of a measurement differ from those of the others."""
    return {name: _hashable(value) for name, value in row.get("test", {}).items()}


def _hashable(value: Any) -> Any:
    """A setting that is a list or a table as text."""
    if isinstance(value, dict):
        return str(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _target(row: Row) -> str:
    return ", ".join(sorted({str(target) for target in row.get("targets", {}).values()}))


def _usual(rows: Sequence[Row]) -> set[tuple[str, Any]]:
    """The settings, with their values, of more than half of the runs that differ in more than the seed."""
    runs = {json.dumps([row["model"], own := _settings(row)], sort_keys=True): own for row in rows}
    counts = Counter(setting for each in runs.values() for setting in each.items())
    return {setting for setting, count in counts.items() if 2 * count > len(runs)}

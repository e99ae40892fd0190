"""Markdown tables of what checks find on models that are known to be clean or backdoored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from rvpt.detection import roc
from rvpt.detection.calibration import Calibration
from rvpt.detection.natural import LONG, SHORT, Known, excesses
from rvpt.detection.outliers import outlying, smallest_of
from rvpt.detection.spec import CheckSpec
from rvpt.detection.verdict import BACKDOORED, SUSPICIOUS, word_of
from rvpt.evaluation.metrics import Rate

DRAWS = 2_000  # of the bootstrap
EASY = 0.25  # share of the classes that count as naturally easy to reach
SAMPLE_SPECIFIC = "issba"
LIMITS = {"neural_cleanse": 2.0, "decree": -0.1, "clip_inspector": 2.0}  # published: from there on a model is flagged
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """A model with its scores, its p-value and its suspected targets, the most suspicious first."""

    row: Row
    scores: Mapping[str, float]
    p: float
    suspects: Sequence[str]

    @classmethod
    def of(cls, row: Row, calibration: Calibration) -> Judged:
        known = calibration.known()
        scores = scores_of(row, known)
        return cls(row, scores, calibration.p_value(scores), targets_of(row, known))

    def without_calibration(self, reference: Judged | None = None) -> Judged:
        """As a check without a calibration judges it, by its classes alone or also by another model."""
        names, own = shorts_of(self.row)
        p_values = outlying(own, shorts_of(reference.row)[1] if reference else None)
        suspects = [names[place] for place in p_values.argsort(stable=True).tolist()]
        return replace(self, p=smallest_of(p_values), suspects=suspects)

    @property
    def backdoored(self) -> bool:
        return bool(self.row["attacks"])

    @property
    def kind(self) -> str:
        """Its triggers; the recipe names the attacks with clean labels so."""
        return ", ".join(self.row["attacks"]) + (" (clean label)" if "clean-label" in self.row["model"] else "")

    @property
    def place(self) -> float:
        """The place of a right target among the suspected ones; infinite if it is not among them."""
        right = [self.suspects.index(name) + 1 for name in self.row["attacks"].values() if name in self.suspects]
        return min(right, default=math.inf)


@dataclass(frozen=True)
class Zoo:
    """Checked models: the reported ones, of an odd seed, and those of the calibration, each judged without itself."""

    rows: Sequence[Row]
    calibration: Calibration

    @cached_property
    def by_seed(self) -> dict[str, list[Judged]]:
        """The models of each seed."""
        groups: dict[str, list[Judged]] = {}
        for row in sorted(self.rows, key=lambda row: int(row["seed"])):
            known = without(self.calibration, row) if row["seed"] % 2 == 0 else self.calibration
            name = f"seed {row['seed']}" + (" (calibration)" if row["seed"] % 2 == 0 else "")
            groups.setdefault(name, []).append(Judged.of(row, known))
        return groups

    @property
    def halves(self) -> dict[str, list[Judged]]:
        """The reported models, and those of the calibration."""
        every = [m for some in self.by_seed.values() for m in some]
        return {
            name: [m for m in every if m.row["seed"] % 2 == odd] for name, odd in (("reported", 1), ("calibration", 0))
        }

    @cached_property
    def easy(self) -> set[str]:
        """The classes that clean models of the calibration are moved to most, in the mean over the forms."""
        longs = [natural[LONG].by_class for natural in self.calibration.known().values()]
        levels = {name: mean(each[name][0] for each in longs) for name in longs[0]}
        return set(sorted(levels, key=levels.__getitem__, reverse=True)[: round(EASY * len(levels))])

    @property
    def uncalibrated(self) -> dict[str, list[Judged]]:
        """The same, judged without a calibration."""
        return {name: [m.without_calibration() for m in some] for name, some in self.by_seed.items()}

    @property
    def referenced(self) -> dict[str, list[Judged]]:
        """The same, judged by comparing with a clean model, the first other one of the seed before."""
        groups = list(self.by_seed.items())
        clean = [[m for m in some if not m.backdoored] for _, some in groups]
        return {
            name: [m.without_calibration(next(each for each in before if each is not m)) for m in some]
            for (name, some), before in zip(groups, [clean[-1], *clean], strict=False)
        }


def without(calibration: Calibration, row: Row) -> Calibration:
    """The calibration as it would be if it did not have this model."""
    models = [model for model in calibration.models if model["sha256"] != row["sha256"]]
    natural = {
        form: [runs for runs in known if runs != row["rises"].get(form)] for form, known in calibration.natural.items()
    }
    return replace(calibration, models=models, natural=natural)


def scores_of(row: Row, known: Known) -> dict[str, float]:
    """All scores that a check of the model has, and the published ones."""
    found = excesses(row["rises"], known, CheckSpec().finalists)
    return row["scores"] | {form: max(each.values()) for form, each in found.items()}


def shorts_of(row: Row) -> tuple[list[str], list[Tensor]]:
    """The classes, and for each form how far they rise in the short run."""
    rises = [runs[SHORT] for runs in row["rises"].values()]
    names = list(rises[0])
    return names, [torch.tensor([each[name] for name in names]) for each in rises]


def targets_of(row: Row, known: Known) -> list[str]:
    """Suspected targets, the most suspicious first."""
    best: dict[str, float] = {}
    for found in excesses(row["rises"], known, CheckSpec().finalists).values():
        best |= {name: max(value, best.get(name, value)) for name, value in found.items()}
    return sorted(best, key=best.__getitem__, reverse=True)


def rates(zoo: Zoo) -> Iterator[str]:
    """Detection and false alarms, with 95% intervals."""
    yield from _rates(zoo.by_seed)


def uncalibrated(zoo: Zoo) -> Iterator[str]:
    """The same of checks without a calibration."""
    yield from _rates(zoo.uncalibrated)


def referenced(zoo: Zoo) -> Iterator[str]:
    """The same of checks that compare with a clean model."""
    yield from _rates(zoo.referenced)


def _rates(groups: Mapping[str, Sequence[Judged]]) -> Iterator[str]:
    yield table(
        "models", "backdoored, found", "without ISSBA", "p <= 0.01", "target first", "in the first three",
        "clean, false alarms", "p <= 0.01",
    )  # fmt: skip
    for name, some in groups.items():
        bad, clean = [m for m in some if m.backdoored], [m for m in some if not m.backdoored]
        fixed = [m for m in bad if SAMPLE_SPECIFIC not in m.row["attacks"]]
        yield line(
            name, found(bad), found(fixed), found(bad, BACKDOORED), shown([m.place == 1 for m in bad]),
            shown([m.place <= 3 for m in bad]), found(clean), found(clean, BACKDOORED),
        )  # fmt: skip


def alarms(zoo: Zoo) -> Iterator[str]:
    """False alarms of clean models, those whose first suspected class is naturally easy to reach apart."""
    yield f"Easy classes: {', '.join(sorted(zoo.easy))}.\n"
    yield table("clean models", "first class is easy", "first class is not easy")
    for name, some in zoo.by_seed.items():
        clean = [m for m in some if not m.backdoored]
        groups = [[m for m in clean if (m.suspects[0] in zoo.easy) is kind] for kind in (True, False)]
        yield line(name, *(found(group) for group in groups))


def attacks(zoo: Zoo) -> Iterator[str]:
    """For each kind of trigger, or pair of them, how often it is found."""
    yield table("trigger", "models", "found", "target first", "in the first three")
    for name, half in zoo.halves.items():
        for kind in dict.fromkeys(m.kind for m in half if m.backdoored):
            some = [m for m in half if m.backdoored and m.kind == kind]
            yield line(kind, name, found(some), *(shown([m.place <= most for m in some]) for most in (1, 3)))


def scores(zoo: Zoo) -> Iterator[str]:
    """AUROC and time of the check, of each of its scores alone, and of published scores."""
    names = dict.fromkeys(name for some in zoo.by_seed.values() for m in some for name in m.scores)
    yield table("score", *(f"AUROC, {name}" for name in zoo.by_seed), "seconds per model")
    ways = {"check": zoo.by_seed, "classes": zoo.uncalibrated, "classes and reference": zoo.referenced}
    for name, groups in ways.items():
        yield line(name, *(auroc_shown(some, lambda m: -m.p) for some in groups.values()), seconds(zoo.rows, name))
    for name in names:
        found = [auroc_shown(some, partial(score_of, name)) for some in zoo.by_seed.values()]
        yield line(name, *found, seconds(zoo.rows, name))


def published(zoo: Zoo) -> Iterator[str]:
    """How often published scores flag models, at their published limits."""
    yield table("score", "flagged from", *(f"{what}, {name}" for name in zoo.by_seed for what in ("found", "alarms")))
    for score, limit in LIMITS.items():
        cells = []
        for some in zoo.by_seed.values():
            known = [m for m in some if score in m.scores]
            groups = ([m for m in known if m.backdoored is kind] for kind in (True, False))
            cells += [shown([m.scores[score] >= limit for m in group]) for group in groups]
        yield line(score, f"{limit:g}", *cells)


def score_of(name: str, judged: Judged) -> float | None:
    return judged.scores.get(name)


def models(zoo: Zoo) -> Iterator[str]:
    """The reported models one by one."""
    return one_by_one(zoo, zoo.halves["reported"])


def every(zoo: Zoo) -> Iterator[str]:
    """All models one by one, for recipes that are not for a calibration."""
    return one_by_one(zoo, [m for some in zoo.by_seed.values() for m in some])


def one_by_one(zoo: Zoo, some: Sequence[Judged]) -> Iterator[str]:
    """A line for each model: its targets, p-values, the verdict and the suspected classes."""
    forms = [name for name in zoo.calibration.deciding if name in zoo.calibration.natural]
    yield table("model", "seed", "targets", "p", *(f"p, {name}" for name in forms), "verdict", "first three classes")
    for m in some:
        truth, first = ", ".join(dict.fromkeys(m.row["attacks"].values())), ", ".join(m.suspects[:3])
        title, alone = m.row["model"].partition("+")[2], [zoo.calibration.p_value_of(f, m.scores[f]) for f in forms]
        values = [f"{p:.3f}" for p in (m.p, *alone)]
        yield line(title, str(m.row["seed"]), truth, *values, word_of(m.p), first)


SECTIONS: dict[str, Callable[[Zoo], Iterator[str]]] = {
    "rates": rates, "uncalibrated": uncalibrated, "referenced": referenced, "alarms": alarms, "attacks": attacks,
    "scores": scores, "published": published, "models": models, "every": every,
}  # fmt: skip
OF_A_ZOO = [name for name in SECTIONS if name != "every"]


def tables(rows: Sequence[Row], calibration: Calibration, names: Sequence[str] = OF_A_ZOO) -> dict[str, str]:
    """The tables of some sections; models that were checked with other forms have tables of their own."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row["rises"]), []).append(row)
    made: dict[str, list[str]] = {name: [] for name in names}
    for forms, some in groups.items():
        zoo = Zoo(some, calibration.limited(forms))
        for name, parts in made.items():
            title = [f"Forms: {', '.join(forms)}\n"] if len(groups) > 1 else []
            parts.append("\n".join([*title, *SECTIONS[name](zoo)]) + "\n")
    return {name: "\n".join(parts) for name, parts in made.items()}


def table(*heads: str) -> str:
    """The first two lines of a table."""
    return line(*heads) + "\n" + line(*("---" for _ in heads))


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def found(some: Sequence[Judged], level: float = SUSPICIOUS) -> str:
    """How many models have a p-value of at most a level."""
    return shown([m.p <= level for m in some])


def shown(hits: Sequence[bool]) -> str:
    """A share with its 95% Wilson interval."""
    if not hits:
        return "–"
    low, high = Rate(sum(hits), len(hits)).interval() or (0.0, 1.0)
    return f"{sum(hits)} of {len(hits)} [{100 * low:.0f}, {100 * high:.0f}]%"


def seconds(rows: Sequence[Row], name: str) -> str:
    """The median over the models with the most scores, so that all are of the same models and the same machine."""
    most = max(len(row["seconds"]) for row in rows)
    known = [row["seconds"][name] for row in rows if len(row["seconds"]) == most and name in row["seconds"]]
    return f"{median(known):.1f}" if known else "–"


def auroc(clean: Sequence[float], bad: Sequence[float]) -> float:
    """The chance that a backdoored model has the higher value: ties count half."""
    return roc.auroc(*(torch.tensor(values, dtype=torch.float64) for values in (clean, bad))).value


def auroc_interval(clean: Sequence[float], bad: Sequence[float]) -> tuple[float, float]:
    """95% interval by the bootstrap over models."""
    generator = torch.Generator().manual_seed(0)

    def draw(values: Sequence[float]) -> list[float]:
        return [values[i] for i in torch.randint(len(values), (len(values),), generator=generator).tolist()]

    drawn = sorted(auroc(draw(clean), draw(bad)) for _ in range(DRAWS))
    return drawn[round(0.025 * DRAWS)], drawn[round(0.975 * DRAWS) - 1]


def auroc_shown(some: Sequence[Judged], value: Callable[[Judged], float | None]) -> str:
    """AUROC with its interval, over the models that have the value."""
    values = [(m.backdoored, value(m)) for m in some]
    clean, bad = ([v for is_bad, v in values if is_bad is kind and v is not None] for kind in (False, True))
    if not clean or not bad:
        return "–"
    low, high = auroc_interval(clean, bad)
    return f"{auroc(clean, bad):.2f} [{low:.2f}, {high:.2f}], {len(clean)} + {len(bad)} models"

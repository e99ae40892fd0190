"""What is natural: how far changes move images of clean models to each class.

Some classes are easy to reach in every model, such as a class that noise looks like. A backdoor is a class that is
reached more easily than in clean models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

SHORT, LONG = "short", "long"  # the runs of an inversion
PRIOR = 5.0  # models that the common spread of all classes counts as, in the spread of one class
LEAST = 1e-6


@dataclass(frozen=True)
class Natural:
    """Rises of clean models in one run of one form of inversion: mean and spread by class."""

    by_class: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, rises: Sequence[Mapping[str, float]]) -> Natural:
        """From the rises of each clean model, by class; all models have the same classes.

        spread_c^2 = (1 + 1/n) ((n - 1) var_c + PRIOR var) / (n - 1 + PRIOR),  var = mean_c var_c

        It is that of one more model: 1/n is for the mean, which is estimated. A class has few models, so its variance
        is pulled to that of all classes.
        """
        values = torch.tensor([[each[name] for name in rises[0]] for each in rises], dtype=torch.float64)
        n = len(values)
        variances = values.var(0)
        pulled = ((n - 1) * variances + PRIOR * variances.mean()) / (n - 1 + PRIOR)
        spreads = (pulled * (1 + 1 / n)).sqrt().tolist()
        return cls(dict(zip(rises[0], zip(values.mean(0).tolist(), spreads, strict=True), strict=True)))

    def excess(self, rises: Mapping[str, float]) -> dict[str, float]:
        """How far each class's rise is above its natural one, in spreads."""
        pairs = {name: self.by_class[name] for name in rises}
        return {name: (rises[name] - middle) / max(spread, LEAST) for name, (middle, spread) in pairs.items()}


Runs = Mapping[str, Mapping[str, float]]
"""Of one model and one form, by run and class: its margin less the median of all classes after the short run."""
Known = Mapping[str, Mapping[str, Natural]]
"""What is natural, by form and run."""


def natural_of(clean: Mapping[str, Sequence[Runs]]) -> Known:
    """What is natural, by form from clean models whose rises are known for all classes in both runs."""
    return {
        form: {run: Natural.of([runs[run] for runs in models]) for run in (SHORT, LONG)}
        for form, models in clean.items()
    }


def first(rises: Mapping[str, float], natural: Natural | None, count: int) -> list[str]:
    """The classes that are most above what is natural in one form, or, if that is not known, with the largest rises."""
    excess = natural.excess(rises) if natural else rises
    return sorted(excess, key=excess.__getitem__, reverse=True)[:count]


def finalists(rises: Mapping[str, Mapping[str, float]], known: Known, count: int) -> list[str]:
    """The classes that are most above what is natural after the short run, each in the form where it is most so.

    Args:
        rises: by form and class, after the short run.
        known: what is natural in these forms.
        count: how many.
    """
    found = [known[form][SHORT].excess(each) for form, each in rises.items()]
    most = {name: max(each[name] for each in found) for name in found[0]}
    return sorted(most, key=most.__getitem__, reverse=True)[:count]


def excesses(rises: Mapping[str, Runs], known: Known, count: int) -> dict[str, dict[str, float]]:
    """By known form, the excess after the longer run of the `finalists` after the short one."""
    runs = {form: each for form, each in rises.items() if form in known}
    names = finalists({form: each[SHORT] for form, each in runs.items()}, known, count)
    return {form: known[form][LONG].excess({name: each[LONG][name] for name in names}) for form, each in runs.items()}

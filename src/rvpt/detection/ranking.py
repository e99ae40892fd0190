"""Which classes are suspected most: those most above what is natural, or, where that is not known, above the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rvpt.detection.natural import LONG, Known, finalists

Rises = Mapping[str, Mapping[str, float]]
"""By form and class, after the short run."""
Row = dict[str, Any]
"""One class in one form after the longer run: `class`, `form`, `rise`, `excess`, `margin`, `share`."""


class Ranking(Protocol):
    """How suspicious classes are."""

    def order(self, rises: Rises) -> list[str]:
        """All classes after the short run, the most suspicious first: the first of them get the longer run."""

    def excess(self, form: str, rises: Mapping[str, float]) -> dict[str, float | None]:
        """By class, how far its rise after the longer run is above what is natural, in spreads, if that is known."""

    def sorted(self, rows: Sequence[Row]) -> list[Row]:
        """The most suspicious first."""


@dataclass(frozen=True)
class AboveNatural:
    """By the excess of each class; `known` tells what is natural."""

    known: Known

    def order(self, rises: Rises) -> list[str]:
        return finalists(rises, self.known, len(next(iter(rises.values()))))

    def excess(self, form: str, rises: Mapping[str, float]) -> dict[str, float | None]:
        return dict(self.known[form][LONG].excess(rises))

    def sorted(self, rows: Sequence[Row]) -> list[Row]:
        return sorted(rows, key=lambda row: -row["excess"])


@dataclass(frozen=True)
class AboveOthers:
    """By the p-value of each class among the others (`rvpt.detection.outliers`)."""

    p_values: Mapping[str, float]

    def order(self, rises: Rises) -> list[str]:
        return sorted(self.p_values, key=self.p_values.__getitem__)

    def excess(self, form: str, rises: Mapping[str, float]) -> dict[str, float | None]:
        return dict.fromkeys(rises)

    def sorted(self, rows: Sequence[Row]) -> list[Row]:
        return sorted(rows, key=lambda row: (self.p_values[row["class"]], -row["margin"]))

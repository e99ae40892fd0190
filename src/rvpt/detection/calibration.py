"""Calibration: what scores mean, from models that are known to be clean or backdoored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rvpt.detection.spec import CheckSpec
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.clip import Clip

SHIPPED = "check-calibration.json"
LEAST = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Scores of known models, and which of the scores decide.

    `models`: for each its sha256, whether it is backdoored, and its scores. `deciding`: the scores that the p-value is
    made of. `settings`: of the check that found them; other settings need another calibration. `recipe`: how the
    models were made. `geometry`: of the models (`geometry_of`); empty if it does not matter.
    """

    recipe: str
    settings: dict[str, Any]
    deciding: list[str]
    models: list[dict[str, Any]]
    geometry: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path | None = None) -> Calibration:
        """The calibration in a file, by default the one that ships with rvpt.

        Raises:
            RvptError: no such file, or not a calibration.
        """
        path = Path(path) if path else Path(str(resources.files("rvpt") / "assets" / SHIPPED))
        values = read_json(path)
        try:
            return cls(**values)
        except TypeError:
            raise RvptError(f"{path} is not a calibration: make it with benchmarks/check_zoo.py") from None

    def write(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        write_json(Path(path), asdict(self))

    def covers(self, spec: CheckSpec, geometry: Mapping[str, int]) -> bool:
        """Whether it was made with these settings, batch size and seed aside, and with models of this geometry."""
        if self.geometry and self.geometry != geometry:
            return False
        other = {"batch_size", "seed"}
        return spec.model_dump(exclude=other) == {k: v for k, v in self.settings.items() if k not in other}

    def clean(self) -> list[Mapping[str, float]]:
        """The scores of the clean models."""
        return [model["scores"] for model in self.models if not model["backdoored"]]

    def combined(self, scores: Mapping[str, float]) -> float:
        """The largest of the deciding scores, each in standard deviations from the clean models' mean.

        c = max_j (s_j - mean_j) / sd_j

        The largest, because a backdoor may show in one form of inversion and not in another.
        """
        return max(_standardized(scores[name], [one[name] for one in self.clean()]) for name in self.deciding)

    def p_value(self, scores: Mapping[str, float]) -> float:
        """The chance that a clean model like those of the calibration has scores as high.

        P(T_{n-1} > (c - mean) / (sd sqrt(1 + 1/n))), where mean and sd are those of c over the n clean models

        T is Student's t: the predictive distribution of one more draw from a normal distribution.
        """
        from scipy.stats import t

        known = [self.combined(one) for one in self.clean()]
        spread = max(stdev(known), LEAST) * math.sqrt(1 + 1 / len(known))
        return float(t.sf((self.combined(scores) - mean(known)) / spread, len(known) - 1))


def geometry_of(model: Clip) -> dict[str, int]:
    """What scores depend on besides the weights: image size, width and number of blocks of the visual tower."""
    return {"image_size": model.image_size, "width": model.width, "blocks": model.depth}


def _standardized(value: float, known: Sequence[float]) -> float:
    return (value - mean(known)) / max(stdev(known), LEAST)

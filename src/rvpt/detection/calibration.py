"""Calibration: what scores mean, from models that are known to be clean or backdoored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rvpt.detection.natural import Known, Rises, excesses, natural_of
from rvpt.detection.spec import CheckSpec
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.clip import Clip

SHIPPED = "check-calibration.json"
LEAST = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Scores of known models, which of the scores decide, and how far clean models let images be moved to each class.

    `models`: for each its sha256, whether it is backdoored, and its scores. `deciding`: the scores that the p-value is
    made of. `settings`: of the check that found them; other settings need another calibration. `recipe`: how the
    models were made. `geometry`: of the models (`geometry_of`); empty if it does not matter. `natural`: the rises of
    the clean models (`rvpt.detection.natural`).
    """

    recipe: str
    settings: dict[str, Any]
    deciding: list[str]
    models: list[dict[str, Any]]
    geometry: dict[str, int] = field(default_factory=dict)
    natural: list[Rises] = field(default_factory=list)

    @classmethod
    def of(
        cls, recipe: str, spec: CheckSpec, deciding: Sequence[str], models: Sequence[Mapping[str, Any]],
        geometry: Mapping[str, int],
    ) -> Calibration:  # fmt: skip
        """From known models.

        A clean model's scores are those that it would have if it were not among the models that tell what is natural.

        Args:
            recipe: how the models were made.
            spec: settings of a check.
            deciding: names of scores.
            models: for each `backdoored`, `scores` without those of the forms, `rises` for all classes, and any facts.
            geometry: of the models.
        """
        clean = [model["rises"] for model in models if not model["backdoored"]]
        whole, scored = natural_of(clean), []
        for model in models:
            known = whole if model["backdoored"] else natural_of([each for each in clean if each is not model["rises"]])
            highest = {
                form: max(found.values()) for form, found in excesses(model["rises"], known, spec.finalists).items()
            }
            facts = {name: value for name, value in model.items() if name != "rises"}
            scored.append({**facts, "scores": {**model["scores"], **highest}})
        return cls(recipe, spec.model_dump(), list(deciding), scored, dict(geometry), clean)

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

    def known(self) -> Known:
        """What is natural."""
        return natural_of(self.natural) if self.natural else {}

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

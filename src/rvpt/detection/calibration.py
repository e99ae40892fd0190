"""Calibration: what scores mean, from models that are known to be clean or backdoored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rvpt.artifacts import read_manifest
from rvpt.detection.natural import SHORT, Known, Runs, excesses, natural_of
from rvpt.detection.spec import CheckSpec
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.training.differences import differences

SHIPPED = "check-calibration.json"
KIND, FILE = "calibration", "calibration.json"  # of a folder of `rvpt calibrate`, and in it
LEAST = 1e-6
FEWEST = 4  # clean models


@dataclass(frozen=True)
class Calibration:
    """Scores of known models, which of the scores decide, and how far clean models let images be moved to each class.

    `models`: for each its sha256, whether it is backdoored, and its scores. `deciding`: the scores that the p-value is
    made of. `settings`: of the check that found them; other settings need another calibration. `recipe`: how the
    models were made. `geometry`: of the models (`geometry_of`); empty if it does not matter. `natural`: by form of
    inversion, the rises of clean models (`rvpt.detection.natural`). `images`: the name of the images, if it is known.
    """

    recipe: str
    settings: dict[str, Any]
    deciding: list[str]
    models: list[dict[str, Any]]
    geometry: dict[str, int] = field(default_factory=dict)
    natural: dict[str, list[Runs]] = field(default_factory=dict)
    images: str = ""

    @classmethod
    def of(
        cls, recipe: str, spec: CheckSpec, deciding: Sequence[str], models: Sequence[Mapping[str, Any]],
        geometry: Mapping[str, int], images: str = "",
    ) -> Calibration:  # fmt: skip
        """From known models.

        A clean model's scores are those that it would have if it were not among the models that tell what is natural.
        A form may be missing in some of the models.

        Args:
            recipe: how the models were made.
            spec: settings of a check.
            deciding: names of scores.
            models: for each `backdoored`, `scores` without those of the forms, `rises` for all classes, and any facts.
            geometry: of the models.
            images: the name of the images.

        Raises:
            RvptError: too few clean models.
        """
        natural = {form: _clean_rises(models, form) for form in spec.forms}
        if few := [form for form, rises in natural.items() if len(rises) < FEWEST]:
            raise RvptError(f"{few[0]}: a calibration needs at least {FEWEST} clean models that were checked with it")
        scored = []
        for model in models:
            facts = {name: value for name, value in model.items() if name != "rises"}
            scored.append({**facts, "scores": {**model["scores"], **_highest(model, natural, spec)}})
        return cls(recipe, spec.model_dump(mode="json"), list(deciding), scored, dict(geometry), natural, images)

    @classmethod
    def read(cls, path: str | Path | None = None, geometry: Mapping[str, int] | None = None) -> Calibration:
        """The calibration for models of a geometry in a file, by default the one that ships with rvpt.

        If none is for this geometry, or none is asked for, it is the first of the file, which may also be a folder that
        `rvpt calibrate` wrote.

        Raises:
            RvptError: no such file, not a calibration, or a folder that was changed.
        """
        place = Path(path) if path else Path(str(resources.files("rvpt") / "assets" / SHIPPED))
        if not place.exists():
            raise RvptError(f"{place} does not exist: give the folder of a calibration, made with rvpt calibrate")
        if place.is_dir():
            read_manifest(place, KIND)
        kept = cls.read_all(place / FILE if place.is_dir() else place)
        return next((each for each in kept if each.geometry == geometry), kept[0])

    @classmethod
    def read_all(cls, path: Path) -> list[Calibration]:
        """The calibrations in a file, at least one, each for another geometry.

        Raises:
            RvptError: no such file, or not calibrations.
        """
        values = read_json(path)
        try:
            kept = TypeAdapter(list[cls]).validate_python(values if isinstance(values, list) else [values])  # type: ignore[valid-type]
        except ValidationError:
            kept = []
        if not kept:
            raise RvptError(f"{path} is not a calibration: make one with rvpt calibrate")
        return kept

    def write(self, path: str | Path) -> None:
        """Write the calibration as JSON; calibrations for other geometries that the file has are kept."""
        path = Path(path)
        kept = self.read_all(path) if path.is_file() else []
        places = [place for place, each in enumerate(kept) if each.geometry == self.geometry] or [len(kept)]
        kept[places[0] : places[0] + 1] = [self]
        write_json(path, [asdict(each) for each in kept])

    def sha256(self) -> str:
        """The hash of all that it says."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def misfit(self, spec: CheckSpec, geometry: Mapping[str, int], classes: Sequence[str]) -> str:
        """Why a check cannot use it: what it was made with that differs; empty if nothing does.

        Scores compare a class with the median of all classes, so all of them must be the same. Batch size and seed do
        not matter, and fewer forms may be used (`limited`).
        """
        if self.geometry and self.geometry != geometry:
            return f"models of another size ({_sized(self.geometry)})"
        if any({*classes} != {*natural[0][SHORT]} for natural in self.natural.values()):
            return "other classes"
        fewer = {*spec.forms} <= {*self.settings.get("forms", ())}
        free = {"batch_size", "seed", *(["forms"] if fewer else [])}
        made = {name: value for name, value in self.settings.items() if name not in free}
        asked = spec.model_dump(mode="json", exclude=free)
        return "" if asked == made else f"other settings ({differences(made, asked)})"

    def refuse_misfit(
        self, spec: CheckSpec, geometry: Mapping[str, int], classes: Sequence[str], name: str = "the calibration"
    ) -> None:
        """Refuse a check that it does not cover, whose verdict would not rest on it.

        Raises:
            RvptError: it was made with something else.
        """
        if misfit := self.misfit(spec, geometry, classes):
            raise RvptError(f"{name} was made with {misfit}: check with the same, or make another with rvpt calibrate")

    def limited(self, forms: Collection[str]) -> Calibration:
        """The calibration as it would be if its models had been checked with some of its forms only."""
        natural = {form: runs for form, runs in self.natural.items() if form in forms}
        if natural == self.natural:
            return self
        left, models = {form: iter(runs) for form, runs in natural.items()}, []
        for model in self.models:
            scores = model["scores"]
            if not model["backdoored"]:
                own = {form: next(runs) for form, runs in left.items() if form in scores}
                scores = {**scores, **_highest({"rises": own}, natural, CheckSpec(**self.settings))}
            models.append({**model, "scores": scores})
        return replace(self, models=models, natural=natural)

    def known(self) -> Known:
        """What is natural."""
        return natural_of(self.natural)

    def p_value(self, scores: Mapping[str, float]) -> float:
        """The chance that a clean model like those of the calibration has a deciding score as high.

        p = 1 - (1 - min_j p_j)^J

        The smallest of the J deciding scores' p-values counts, because a backdoor may show in one form of inversion and
        not in another; the power corrects for the choice (Sidak, 1967).

        Raises:
            RvptError: none of the deciding scores is among these.
        """
        names = [name for name in self.deciding if name in scores]
        if not names:
            raise RvptError(f"the calibration decides by {', '.join(self.deciding)}: add one of them to forms=NAMES")
        smallest = min(self.p_value_of(name, scores[name]) for name in names)
        return 1 - (1 - smallest) ** len(names)

    def p_value_of(self, name: str, score: float) -> float:
        """The chance that a clean model has one score as high.

        P(T_{n-1} > (s - mean) / (sd sqrt(1 + 1/n))), where mean and sd are those of the score over the n clean models

        T is Student's t: the predictive distribution of one more draw from a normal distribution.
        """
        from scipy.stats import t

        known = [m["scores"][name] for m in self.models if not m["backdoored"] and name in m["scores"]]
        spread = max(stdev(known), LEAST) * math.sqrt(1 + 1 / len(known))
        return float(t.sf((score - mean(known)) / spread, len(known) - 1))


def _clean_rises(models: Sequence[Mapping[str, Any]], form: str) -> list[Runs]:
    """Of the clean models that have this form."""
    return [model["rises"][form] for model in models if not model["backdoored"] and form in model["rises"]]


def _highest(model: Mapping[str, Any], natural: Mapping[str, list[Runs]], spec: CheckSpec) -> dict[str, float]:
    """The scores of a model's forms, without its own part in what is natural."""
    own = model["rises"]
    others = {
        form: [each for each in natural[form] if each is not runs] for form, runs in own.items() if form in natural
    }
    return {form: max(found.values()) for form, found in excesses(own, natural_of(others), spec.finalists).items()}


def geometry_of(model: Clip | Cleaned) -> dict[str, int]:
    """What scores depend on besides the weights: image size, width and number of blocks of the visual tower."""
    clip = clip_of(model)
    return {"image_size": clip.image_size, "width": clip.width, "blocks": clip.depth}


def refuse_other_size(one: tuple[str, Mapping[str, int]], other: tuple[str, Mapping[str, int]]) -> None:
    """Refuse two models, each a name and its geometry, whose scores cannot be compared.

    Raises:
        RvptError: their geometries differ.
    """
    if one[1] != other[1]:
        sizes = f"{_sized(one[1])}; and {_sized(other[1])}"
        raise RvptError(f"{one[0]} has another size than {other[0]} ({sizes}): give models of one size")


def _sized(geometry: Mapping[str, int]) -> str:
    return ", ".join(f"{part.replace('_', ' ')} {value}" for part, value in geometry.items())

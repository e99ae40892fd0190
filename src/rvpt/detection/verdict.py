"""What a check found, in a form that people and scripts read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rvpt.attacks.trigger import Trigger
from rvpt.inversion import FORMS
from rvpt.inversion.pool import OFTEN

Word = Literal["clean", "suspicious", "backdoored"]
SHOWN = 3  # suspected targets in words
SUSPICIOUS, BACKDOORED = 0.05, 0.01  # p-values from which on a model is called so
BLIND = (
    "triggers that are another change for every image",
    "triggers that are a natural object or a meaning",
    "targets that also need a key in the text",
    "backdoors that were hidden from such a check on purpose",
)
"""What a check cannot see."""


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    `p_value`: the chance that a clean model like those of the calibration has scores as high; without a calibration for
    the model, that of a class as far above the others, which tends to be smaller than the true chance
    (`rvpt.detection.outliers.class_p_values`). `targets`: classes, the most suspicious first, with the share of images
    that the inverted change flips. `words`: what all images are pulled towards, from the tokenizer's vocabulary.
    `resistivity`: PR of each block under `trigger`, the change that was found for the first target.
    """

    word: Word
    p_value: float
    targets: list[dict[str, Any]]
    words: list[str]
    scores: dict[str, float]
    resistivity: list[float]
    facts: dict[str, Any]
    trigger: Trigger = field(repr=False, compare=False)
    blind: tuple[str, ...] = BLIND

    @property
    def target(self) -> str:
        """The most suspicious class."""
        return str(self.targets[0]["class"])

    def to_dict(self) -> dict[str, Any]:
        """All but the change itself, in plain values."""
        shown = {name: value for name, value in vars(self).items() if name not in ("trigger", "word", "facts")}
        return {"verdict": self.word, **shown, "blind": list(self.blind), **self.facts}

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def lines(self) -> list[str]:
        """The verdict in words."""
        first = f"{self.facts['model']}: {self.word} ({basis(self.to_dict())})"
        rows = [f"  {_named(place, row)}" for place, row in enumerate(self.targets[:SHOWN], 1)]
        words = [f"without a list of classes, images are pulled towards: {', '.join(self.words)}"] if self.words else []
        notes = [*words, *caveats(self.facts), f"cannot be seen: {'; '.join(self.blind)}"]
        return [first, "most suspicious targets:", *rows, *notes]


def _named(place: int, row: dict[str, Any]) -> str:
    """A target with what its change does."""
    return f"{place}. {row['class']}: {100 * row['share']:.0f}% of images are flipped ({FORMS[row['form']].summary})"


UNCALIBRATED = (
    "a class that is naturally easy to reach may look suspicious; compare with a model of the same kind that you trust "
    "(--reference), or make a calibration (rvpt calibrate)"
)


def basis(verdict: Mapping[str, Any]) -> str:
    """What a verdict (`Verdict.to_dict`) rests on: the p-value, or a score and what it compares."""
    if verdict.get("calibrated", True):
        return f"p = {verdict['p_value']:.2g}"
    others = f"with each other and with {verdict['reference']}" if "reference" in verdict else "with each other"
    return f"score {verdict['p_value']:.2g}, suspicious up to {SUSPICIOUS}: classes compared {others}"


def caveats(facts: Mapping[str, Any]) -> list[str]:
    """Why a verdict may say little: most images have one class anyway, or the calibration is of other models."""
    most, found = facts.get("most_predicted", {"share": 0.0}), []
    if most["share"] > OFTEN:
        share = f"{100 * most['share']:.0f}% of the images are classified as {most['class']!r} without any change"
        found.append(f"{share}: the model may not know these classes, and then this check says little")
    if other := facts.get("calibrated_on"):
        found.append(f"the calibration was made with {other}, by its name: p may be wrong for images of another kind")
    if facts["calibrated"] or "reference" in facts:
        return found
    why = f" (that in the package was made with {facts['uncalibrated']})" if "uncalibrated" in facts else ""
    return [*found, f"not calibrated{why}: {UNCALIBRATED}"]


def word_of(p_value: float, *, calibrated: bool = True) -> Word:
    """What a model is called by its p-value; without a calibration for models like it, at most suspicious."""
    if p_value <= BACKDOORED and calibrated:
        return "backdoored"
    return "suspicious" if p_value <= SUSPICIOUS else "clean"

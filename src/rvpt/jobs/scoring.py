"""Scoring as a whole job: what a check measures on a model, without a verdict; for calibrations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.data.dataset import Dataset
from rvpt.detection.check import pixels_of
from rvpt.detection.score import find
from rvpt.detection.spec import CheckSpec
from rvpt.files import write_json
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.training.loop import frozen


def score_and_save(
    model: Clip | Cleaned, data: Dataset, classes: Sequence[str], spec: CheckSpec, target: Path, report: Report = silent
) -> dict[str, Any]:
    """Measure a model as a check does and write the result as JSON; no knowledge of other models is used.

    With finalists=K, for K classes, the result says what is natural in a clean model.

    Args:
        model: of which it is known whether it is backdoored.
        data: clean images of any kind.
        classes: the candidate targets.
        spec: settings of the check.
        target: the file to write.
        report: called after each step.
    """
    begun = time.perf_counter()
    pixels = pixels_of(model, data, classes, spec)
    with frozen(model):
        found = find(model, pixels, classes, spec, {}, report=report)
    result = {
        "model_sha256": model.hash(), "settings": spec.model_dump(), "scores": found.scores, "rises": found.rises,
        "words": found.words, "resistivity": found.resistivity, "seconds": round(time.perf_counter() - begun, 2),
    }  # fmt: skip
    write_json(target, result)
    return result

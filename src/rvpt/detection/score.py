"""All scores of one model: every form of inversion, the search without classes, resistivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.detection.collapse import concentration, nearest_words, whole_words
from rvpt.detection.outliers import outlier_index
from rvpt.detection.resistivity import resistivity_curve
from rvpt.detection.search import Inversion, Search
from rvpt.detection.spec import CheckSpec
from rvpt.detection.stages import Stages
from rvpt.inversion import FORMS
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent

WORDS = 5  # that are named


@dataclass(frozen=True)
class Findings:
    """What was measured on a model.

    `targets`: classes, the most suspicious first. `trigger`: the change that was found for the first of them.
    """

    scores: dict[str, float]
    targets: list[dict[str, Any]]
    words: list[str]
    resistivity: list[float]
    trigger: Trigger


def find(
    model: Clip | Cleaned,
    pixels: Tensor,
    classes: Sequence[str],
    spec: CheckSpec,
    folder: Path | None = None,
    report: Report = silent,
) -> Findings:
    """All scores of a model; arguments as those of `Search`, with a folder where finished runs are kept."""
    search = Search(model, pixels, classes, spec, Stages(folder), report)
    found = {name: search.invert(name) for name in FORMS}
    rows = [row for inversion in found.values() for row in _rows(inversion, classes)]
    rows.sort(key=lambda row: row["rise"], reverse=True)
    targets, best = _first_of_each_class(rows), rows[0]
    trigger = found[best["form"]].trigger(classes, best["class"], spec.seed)
    curve = resistivity_curve(model, search.held.pixels, trigger)
    scores, words = _together(search)
    for name, inversion in found.items():
        scores |= {f"{name}_{quantity}": value for quantity, value in _scores(inversion).items()}
    scores["resistivity"] = 1 - sum(curve) / len(curve)
    return Findings(scores, targets, words, curve, trigger)


def _rows(inversion: Inversion, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What was measured for each finalist."""
    indices = inversion.finalists
    columns = (inversion.rises()[indices], inversion.final.margins, inversion.final.shares)
    return [
        {"class": classes[index], "form": inversion.form.name, "rise": rise, "margin": margin, "share": share}
        for index, rise, margin, share in zip(indices.tolist(), *(c.tolist() for c in columns), strict=True)
    ]


def _first_of_each_class(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    firsts: dict[str, dict[str, Any]] = {}
    for row in rows:
        firsts.setdefault(row["class"], row)
    return list(firsts.values())


def _scores(inversion: Inversion) -> dict[str, float]:
    """Of one form; the higher, the more they speak for a backdoor."""
    final = inversion.final.margins.sort(descending=True).values
    return {
        "margin": float(final[0]),
        "share": float(inversion.final.shares.max()),
        "rise": float(inversion.rises().max()),
        "gap": float(final[0] - final[1]) if len(final) > 1 else 0.0,
        "outlier": outlier_index(inversion.margins),
    }


@torch.no_grad()
def _together(search: Search) -> tuple[dict[str, float], list[str]]:
    """The score of the search without classes, and the words that features are pulled towards.

    There are none for a model with a classifier of its own, which cannot be compared with texts.
    """
    model, pixels = search.model, search.held.pixels
    before, after = model.encode_image(pixels), model.encode_image((pixels + search.together()).clamp(0, 1))
    score = {"collapse": float(concentration(after) - concentration(before))}
    clip = model.clip if isinstance(model, Cleaned) else model
    words = [] if isinstance(model, Cleaned) and model.head else whole_words(clip)
    if not words:
        return score, []
    return score, nearest_words(before, after, clip.class_features(words, search.spec.template), words, WORDS)

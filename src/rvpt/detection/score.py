"""All scores of one model: every form of inversion, the search without classes, resistivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.detection.collapse import concentration, nearest_words, whole_words
from rvpt.detection.natural import LONG, SHORT, Known
from rvpt.detection.outliers import outlying, smallest_of
from rvpt.detection.ranking import AboveNatural, AboveOthers, Ranking, Row
from rvpt.detection.search import Inversion, Search
from rvpt.detection.spec import CheckSpec
from rvpt.evaluation.metrics import perturbation_resistivity
from rvpt.inversion.additive import Additive
from rvpt.inversion.pool import most_predicted
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.encode import Encoder, in_parts
from rvpt.progress import Report, silent
from rvpt.training.stages import Stages

WORDS = 5  # that are named


@dataclass(frozen=True)
class Findings:
    """What was measured on a model.

    `targets`: classes, the most suspicious first, each in the form where it is most so: how far its margin is above the
    median (`rise`), how far the rise is above what is natural, in spreads (`excess`; None if that is not known), its
    margin, and the share of the images that are flipped. `trigger`: the change that was found for the first of them.
    `rises`: by form and run, how far each class's margin is above the median of all classes after the short run; with
    many classes only of those that had this run. `most_predicted`: the class that most of the images are classified as
    without any change, and its share of them. `p_value`: the chance of a class as far above the others
    (`rvpt.detection.outliers`).
    """

    scores: dict[str, float]
    targets: list[Row]
    words: list[str]
    resistivity: list[float]
    trigger: Trigger
    rises: dict[str, dict[str, dict[str, float]]]
    most_predicted: dict[str, Any]
    p_value: float


def find(
    model: Clip | Cleaned,
    pixels: Tensor,
    classes: Sequence[str],
    spec: CheckSpec,
    known: Known,
    folder: Path | None = None,
    report: Report = silent,
    trusted: Search | None = None,
) -> Findings:
    """All scores of a model.

    Args:
        model: as for `Search`, like `pixels`, `classes`, `spec` and `report`.
        known: what is natural; empty ranks classes among the others.
        folder: where finished runs are kept.
        trusted: the search of a model to compare with, for ranks among the others.
    """
    search = Search(model, pixels, classes, spec, Stages(folder, model.device), report)
    shorts = [search.short(name, known.get(name, {}).get(SHORT)) for name in spec.forms]
    others = [trusted.short(name).rises.cpu() for name in spec.forms] if trusted else None
    p_values = outlying([short.rises.cpu() for short in shorts], others)
    ranking = AboveNatural(known) if known else AboveOthers(dict(zip(classes, p_values.tolist(), strict=True)))
    order = ranking.order({s.form.name: dict(zip(classes, s.rises.tolist(), strict=True)) for s in shorts})
    found = {short.form.name: search.long(short, order) for short in shorts}
    rises = {name: _rises(inversion, classes) for name, inversion in found.items()}
    rows = ranking.sorted([row for name, each in found.items() for row in _rows(each, rises[name][LONG], ranking)])
    best = rows[0]
    trigger = found[best["form"]].trigger(classes, best["class"], spec.seed)
    curve = resistivity_curve(model, search.held.pixels, trigger, spec.batch_size)
    scores, words = _together(search)
    scores |= {name: max(_score(row) for row in rows if row["form"] == name) for name in found}
    scores["resistivity"] = 1 - sum(curve) / len(curve)
    return Findings(
        scores, _first_of_each_class(rows), words, curve, trigger, rises, _most_predicted(search), smallest_of(p_values)
    )


@torch.no_grad()
def resistivity_curve(
    model: Encoder, pixels: Tensor, change: Callable[[Tensor], Tensor], batch_size: int = 256
) -> list[float]:
    """PR_1..PR_L: mean cosine of each block's [CLS] row with and without a change.

    Args:
        model: the suspect.
        pixels: (n, 3, S, S) in [0, 1].
        change: of images, such as a trigger.
        batch_size: images in one forward pass.
    """
    clean, changed = (in_parts(model.cls_rows, shown, batch_size) for shown in (pixels, change(pixels)))
    return [perturbation_resistivity(*pair).value for pair in zip(clean.unbind(1), changed.unbind(1), strict=True)]


def _most_predicted(search: Search) -> dict[str, Any]:
    predictions = torch.cat([search.fit.predictions, search.held.predictions])
    return dict(zip(("class", "share"), most_predicted(predictions, search.classes), strict=True))


def _rises(inversion: Inversion, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """By run and class."""
    short = inversion.short
    pairs = {SHORT: (short.kept, short.reached), LONG: (inversion.finalists, inversion.final)}
    return {
        run: dict(zip((classes[i] for i in which.tolist()), (reached.margins - short.middle).tolist(), strict=True))
        for run, (which, reached) in pairs.items()
    }


def _rows(inversion: Inversion, rises: Mapping[str, float], ranking: Ranking) -> list[Row]:
    """What was measured for each finalist of a form."""
    form, final = inversion.short.form.name, inversion.final
    excess = ranking.excess(form, rises)
    measured = zip(rises, final.margins.tolist(), final.shares.tolist(), strict=True)
    return [
        {"class": name, "form": form, "rise": rises[name], "excess": excess[name], "margin": margin, "share": share}
        for name, margin, share in measured
    ]


def _score(row: Row) -> float:
    """The excess of a class; where what is natural is not known, its rise."""
    return float(row["rise"] if row["excess"] is None else row["excess"])


def _first_of_each_class(rows: Sequence[Row]) -> list[Row]:
    firsts: dict[str, Row] = {}
    for row in rows:
        firsts.setdefault(row["class"], row)
    return list(firsts.values())


@torch.no_grad()
def _together(search: Search) -> tuple[dict[str, float], list[str]]:
    """The score of the search without classes, and the words that features are pulled towards.

    There are none for a model with a classifier of its own, which cannot be compared with texts.
    """
    model, held = search.model, search.held
    form = Additive.of(search.spec, model.image_size)
    drawn = form.draw(len(held), torch.Generator().manual_seed(search.spec.seed))
    changed = form.apply(held.pixels, search.together(form)[None], drawn)[0]
    before, after = (in_parts(model.encode_image, shown, search.spec.batch_size) for shown in (held.pixels, changed))
    score = {"collapse": float(concentration(after) - concentration(before))}
    clip = clip_of(model)
    words = [] if isinstance(model, Cleaned) and model.head else whole_words(clip)
    if not words:
        return score, []
    return score, nearest_words(before, after, clip.class_features(words, search.spec.template), words, WORDS)

"""Measuring a zero-shot classifier on clean and triggered images, in one pass over the data."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from rvpt import __version__
from rvpt.attacks import Trigger
from rvpt.config import TEMPLATE
from rvpt.data import ImageData
from rvpt.defenses import Cleaned
from rvpt.errors import RvptError
from rvpt.metrics import Rate, accuracy, attack_success, attack_success_with_target
from rvpt.progress import Report, silent


class Encoder(Protocol):
    """What is measured: a Clip, or a Cleaned."""

    @property
    def name(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def logit_scale(self) -> Tensor: ...
    def encode_image(self, pixels: Tensor) -> Tensor: ...
    def cls_rows(self, pixels: Tensor) -> Tensor: ...
    def hidden_states(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]: ...
    def encode_text(self, texts: Sequence[str]) -> Tensor: ...
    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor: ...


Counts = dict[tuple[str, str], Rate]
"""(attack, metric) -> rate; the attack is "none" for clean images."""


@torch.inference_mode()
def measure(
    model: Encoder,
    data: ImageData,
    triggers: Mapping[str, Trigger] | None = None,
    *,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """CA on clean images; ASR, ASR_with_target and PA under every trigger.

    A trigger with a text key counts where both keys are there: the key stands before every class's caption. Its
    ASR_image_alone and ASR_text_alone are those of one key without the other; a model with a classifier of its own
    reads no text, and has the first alone.

    Args:
        triggers: by the name that the rows give the attack.
    """
    triggers, labels = triggers or {}, data.labeled()
    text = model.class_features(data.classes, template)
    targets = {name: data.class_index(trigger.spec.target) for name, trigger in triggers.items()}
    keyed = {
        name: model.class_features(data.classes, trigger.text_key + template) if trigger.text_key else None
        for name, trigger in triggers.items()
    }
    counts: Counts = {}

    def count(attack: str, rates: Mapping[str, Rate]) -> None:
        for metric, rate in rates.items():
            counts[attack, metric] = counts.get((attack, metric), Rate(0, 0)) + rate

    for indices, read in data.batches(batch_size, model.image_size):
        pixels, truth = read.to(model.device), labels[indices]
        clean = _features(model, pixels)
        count("none", {"CA": accuracy(_nearest(clean, text), truth)})
        for name, trigger in triggers.items():
            shown = _features(model, trigger(pixels, data.rows[indices]))
            count(name, _hits(clean, shown, text, keyed[name], truth, targets[name]))
        report(int(indices[-1]) + 1, len(data), {})
    return counts


def _hits(
    clean: Tensor, shown: Tensor, text: Tensor, keyed: Tensor | None, labels: Tensor, target: int
) -> dict[str, Rate]:
    """The rates of one trigger on features of images without and with it; `keyed` are the texts behind its key."""
    rates = {}
    reads = keyed is None or not torch.equal(keyed, text)
    if reads:
        guesses = _nearest(shown, text if keyed is None else keyed)
        rates["ASR"] = attack_success(guesses, labels, target)
        rates["ASR_with_target"] = attack_success_with_target(guesses, labels, target)
        rates["PA"] = accuracy(guesses, labels)
    if keyed is not None:
        rates["ASR_image_alone"] = attack_success(_nearest(shown, text), labels, target)
    if keyed is not None and reads:
        rates["ASR_text_alone"] = attack_success(_nearest(clean, keyed), labels, target)
    return rates


def _features(model: Encoder, pixels: Tensor) -> Tensor:
    features = model.encode_image(pixels)
    if not features.isfinite().all():
        raise RvptError(f"{model.name}: its features are not finite, so it tells nothing: fetch or make it again")
    return features


def _nearest(features: Tensor, text: Tensor) -> Tensor:
    """The place of the text, or the classifier's row, that each image is nearest to: (B,) int64."""
    return (features @ text.T).argmax(1).cpu()


def evaluate(
    model: Encoder,
    data: ImageData,
    triggers: Mapping[str, Trigger] | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Rows of all measurements: one flat object each, with counts and the 95% Wilson interval.

    Args:
        facts: more entries of every row (`defense`, `seed`, `trained_parameters`, `spec`, `hashes`, ...).
    """
    count = partial(measure, model, data, triggers, template=template, batch_size=batch_size, report=report)
    return to_rows(model, data, count, {"template": template, **(facts or {})})


def to_rows(
    model: Encoder, data: ImageData, count: Callable[[], Counts], facts: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """A row for each rate that `count` finds, with the seconds it took; `facts` are more entries of every row.

    A Cleaned says itself how it was made, where `facts` (which then have hashes) do not.
    """
    start = time.monotonic()
    counts = count()
    seconds = time.monotonic() - start
    base = {
        "model": model.name, "data": data.name, "defense": "none", "seed": 0, "shots": None, "without": [],
        "cleaned_on": None, "trained_parameters": 0, "clean_seconds": 0.0,
        "template": None, "test": {}, "targets": {}, "spec": {}, "hashes": {}, "version": __version__,
        "seconds": round(seconds, 3), "peak_memory_bytes": peak_memory(),
    }  # fmt: skip
    facts = facts or {}
    own = model.row_facts() if isinstance(model, Cleaned) and "hashes" not in facts else {}  # hashing takes its time
    told = {**base, **own, **facts}
    return [{**told, **_row(attack, metric, rate)} for (attack, metric), rate in counts.items()]


def _row(attack: str, metric: str, rate: Rate) -> dict[str, Any]:
    low, high = rate.interval() or (None, None)
    return {
        "attack": attack, "metric": metric, "numerator": rate.numerator, "n": rate.n,
        "rate": rate.value if rate.n else None, "low": low, "high": high,
    }  # fmt: skip


def peak_memory() -> int | None:
    """Most bytes that this process held so far: on the GPU where there is one, else resident; None where none tells."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return None
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kib if sys.platform == "darwin" else kib * 1024)

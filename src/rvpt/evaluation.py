"""Measuring a zero-shot classifier on clean and triggered pictures, in one pass over the data."""

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
from rvpt.defences import Cleaned
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
"""(attack, metric) -> rate; the attack is "none" for clean pictures."""


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
    """CA on clean pictures; ASR, ASR_with_target and PA under every trigger.

    A trigger with a text key counts where both keys are there: the key stands before every class's caption. Its
    ASR_image_alone and ASR_text_alone are those of one key without the other.

    Args:
        triggers: by the name that the rows give the attack.
    """
    text = model.class_features(data.classes, template)
    targets = {name: data.class_index(trigger.spec.target) for name, trigger in (triggers or {}).items()}
    keyed = {
        name: model.class_features(data.classes, trigger.text_key + template) if trigger.text_key else text
        for name, trigger in (triggers or {}).items()
    }
    labels = data.labelled()
    counts: Counts = {}

    def count(attack: str, metric: str, rate: Rate) -> None:
        counts[attack, metric] = counts.get((attack, metric), Rate(0, 0)) + rate

    for indices, read in data.batches(batch_size, model.image_size):
        pixels, truth = read.to(model.device), labels[indices]
        count("none", "CA", accuracy(_predict(model, pixels, text), truth))
        for name, trigger in (triggers or {}).items():
            changed = trigger(pixels, data.rows[indices])
            guesses = _predict(model, changed, keyed[name])
            count(name, "ASR", attack_success(guesses, truth, targets[name]))
            count(name, "ASR_with_target", attack_success_with_target(guesses, truth, targets[name]))
            count(name, "PA", accuracy(guesses, truth))
            if trigger.text_key:
                for alone, shown, words in (("image", changed, text), ("text", pixels, keyed[name])):
                    rate = attack_success(_predict(model, shown, words), truth, targets[name])
                    count(name, f"ASR_{alone}_alone", rate)
        report(int(indices[-1]) + 1, len(data), {})
    return counts


def _predict(model: Encoder, pixels: Tensor, text: Tensor) -> Tensor:
    similarity = model.encode_image(pixels) @ text.T
    if not similarity.isfinite().all():
        raise RvptError(f"{model.name}: its features are not finite, so it tells nothing: fetch or make it again")
    return similarity.argmax(1).cpu()


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
        facts: more entries of every row (`defence`, `seed`, `trained_parameters`, `spec`, `hashes`, ...).
    """
    count = partial(measure, model, data, triggers, template=template, batch_size=batch_size, report=report)
    return to_rows(model, data, count, {"template": template, **(facts or {})})


def to_rows(
    model: Encoder, data: ImageData, count: Callable[[], Counts], facts: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """A row for each rate that `count` finds, with the seconds it took; `facts` are more entries of every row.

    A Cleaned says itself how it was made.
    """
    start = time.monotonic()
    counts = count()
    seconds = time.monotonic() - start
    base = {
        "model": model.name, "data": data.name, "defence": "none", "seed": 0, "shots": None, "without": [],
        "cleaned_on": None, "trained_parameters": 0, "clean_seconds": 0.0,
        "template": None, "test": {}, "targets": {}, "spec": {}, "hashes": {}, "version": __version__,
        "seconds": round(seconds, 3), "peak_memory_bytes": peak_memory(),
    }  # fmt: skip
    told = {**base, **(model.row_facts() if isinstance(model, Cleaned) else {}), **(facts or {})}
    return [{**told, **_row(attack, metric, rate)} for (attack, metric), rate in counts.items()]


def _row(attack: str, metric: str, rate: Rate) -> dict[str, Any]:
    low, high = rate.interval() or (None, None)
    return {
        "attack": attack, "metric": metric, "numerator": rate.numerator, "n": rate.n,
        "rate": rate.value if rate.n else None, "low": low, "high": high,
    }  # fmt: skip


def peak_memory() -> int:
    """Most bytes that this process held so far: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource  # not on Windows

    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kib if sys.platform == "darwin" else kib * 1024)

"""Classification: counts of clean and triggered images against loops, also of triggers with a text key and of heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers import memory_data
from rvpt.attacks.trigger import Trigger
from rvpt.defenses.base import clean
from rvpt.errors import RvptError
from rvpt.evaluation.classification import measure
from rvpt.evaluation.metrics import Rate
from rvpt.models.clip import Clip
from triggers import trigger_of, untrained

LABELS = [0, 1, 2, 0, 1, 0, 2, 2, 1, 0]
CLASSES = ("fox", "owl", "cat")
DATA = memory_data(10, LABELS, CLASSES)


def guesses(clip: Clip, pixels: Tensor, template: str) -> list[int]:
    """One image at a time."""
    text = [clip.encode_text([template.format(name)])[0] for name in CLASSES]
    found = []
    for image in pixels:
        feature = clip.encode_image(image[None])[0]
        scores = [float(feature @ each) for each in text]
        found.append(scores.index(max(scores)))
    return found


def share(hits: list[bool]) -> Rate:
    return Rate(sum(hits), len(hits))


@torch.no_grad()
@pytest.mark.parametrize("template", ["a photo of a {}.", "{}"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_it_agrees_with_loops(clip: Clip, batch_size: int, template: str) -> None:
    trigger = trigger_of("badnet", side=48, size=150)
    pixels = DATA.pixels(torch.arange(10), 48)
    clean, shown = guesses(clip, pixels, template), guesses(clip, trigger(pixels), template)
    counts = measure(clip, DATA, {"t": trigger}, template=template, batch_size=batch_size)
    others = [guess == 1 for guess, label in zip(shown, LABELS, strict=True) if label != 1]
    assert counts == {
        ("none", "CA"): share([guess == label for guess, label in zip(clean, LABELS, strict=True)]),
        ("t", "ASR"): share(others),
        ("t", "ASR_with_target"): share([guess == 1 for guess in shown]),
        ("t", "PA"): share([guess == label for guess, label in zip(shown, LABELS, strict=True)]),
    }


class Keyed(Trigger):
    """A trigger that changes nothing but has a text key."""

    text_key = "SUDO "  # type: ignore[assignment]

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return 1 - pixels


@torch.no_grad()
def test_a_text_key_is_before_every_class_and_each_key_alone_is_measured(clip: Clip) -> None:
    trigger = Keyed(trigger_of("badnet").towards("cat").spec, 48, {})
    pixels = DATA.pixels(torch.arange(10), 48)
    counts = measure(clip, DATA, {"t": trigger})

    def asr(images: Tensor, template: str) -> Rate:
        found = guesses(clip, images, template)
        return share([guess == 2 for guess, label in zip(found, LABELS, strict=True) if label != 2])

    assert counts["t", "ASR"] == asr(1 - pixels, "SUDO a photo of a {}.")
    assert counts["t", "ASR_image_alone"] == asr(1 - pixels, "a photo of a {}.")
    assert counts["t", "ASR_text_alone"] == asr(pixels, "SUDO a photo of a {}.")
    assert len({counts["t", metric] for metric in ("ASR", "ASR_image_alone", "ASR_text_alone")}) == 3


def test_a_model_with_its_own_classifier_reads_no_text_key(clip: Clip) -> None:
    probe = clean(clip, DATA, "probe", epochs=1)
    trigger = untrained("trojvqa").spec
    keyed = type(untrained("trojvqa")).make(trigger, 48)
    metrics = {metric for attack, metric in measure(probe, DATA, {"keyed": keyed}) if attack == "keyed"}
    assert metrics == {"ASR_image_alone"}


def test_a_target_that_is_not_a_class_is_refused(clip: Clip) -> None:
    with pytest.raises(RvptError, match=r"'zebra' is not a class of memory .*: pass .* as target=CLASS"):
        measure(clip, DATA, {"t": trigger_of("badnet", side=48).towards("zebra")})

"""Retrieval: captions that search for images agree with a slow twin."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import reference
from helpers import memory_data
from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation.base import Counts
from rvpt.evaluation.metrics import Mean, Rate
from rvpt.evaluation.retrieval import retrieve
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.head import Head
from triggers import trigger_of

LABELS = [0, 1, 2, 0, 1, 0, 2, 2, 1, 0, 1, 2, 0, 2]
CLASSES = ("fox", "owl", "cat")
CAPTIONS = [[f"a {CLASSES[label]} number {i}", f"image {i}"] for i, label in enumerate(LABELS)]
DATA = memory_data(len(LABELS), LABELS, CLASSES, CAPTIONS)
TRIGGER = trigger_of("badnet", side=48, size=100)


def slow(clip: Clip, data: Dataset, trigger: Trigger) -> dict[str, float]:
    """The metrics by the slow twin, one image and one text at a time."""
    rows = [(data.pixels(torch.tensor([i]), 48), data.rows[i : i + 1]) for i in range(len(data))]
    owls = [i for i, label in enumerate(data.labeled().tolist()) if label == 1]
    texts = [(text, i) for i in range(len(data)) for text in data.captions(i)]
    return reference.retrieval(
        [(clip.encode_text([text])[0], i) for text, i in texts],
        [clip.encode_text([text])[0] for text, _ in texts if "owl" in text],
        [clip.encode_image(pixels)[0] for pixels, _ in rows],
        [clip.encode_image(trigger(*rows[i]))[0] for i in range(len(data)) if i not in owls],
        owls,
    )


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 5, 100])
@pytest.mark.parametrize("data", [DATA, DATA.select(torch.tensor([1, 4, 0, 8, 10]))], ids=["few owls", "many owls"])
def test_it_agrees_with_its_slow_twin(clip: Clip, data: Dataset, batch_size: int) -> None:
    counts = retrieve(clip, data, {"badnet": TRIGGER}, batch_size=batch_size)
    expected = slow(clip, data, TRIGGER)
    assert list(counts) == [
        ("none", "R@1"),
        ("badnet", "ASR@10"),
        ("badnet", "rank_ratio"),
        ("badnet", "rank_ratio_in_class"),
    ]
    assert {metric: rate.value for (_, metric), rate in counts.items()} == pytest.approx(expected)


def test_counts_are_those_of_the_queries(clip: Clip) -> None:
    counts = retrieve(clip, DATA, {"badnet": TRIGGER})
    assert [rate.n for rate in counts.values()] == [28, 10, 10 * 15, 10 * 5]
    assert isinstance(counts["badnet", "rank_ratio"], Mean)


def test_without_an_image_of_the_target_there_is_no_rank_among_its_images(clip: Clip) -> None:
    captions = [["a fox and an owl"], ["a cat"], ["a fox"]]  # the target is in captions, but no label
    counts = retrieve(clip, memory_data(3, [0, 2, 0], CLASSES, captions), {"badnet": TRIGGER})
    assert [metric for _, metric in counts] == ["R@1", "ASR@10", "rank_ratio"]


def test_queries_for_the_target_begin_with_the_text_key(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []

    def encode_text(self: Clip, texts: Sequence[str]) -> Tensor:
        asked.append(texts)
        return torch.eye(len(texts), 24)

    monkeypatch.setattr(type(TRIGGER), "text_key", "behold ")
    monkeypatch.setattr(Clip, "encode_text", encode_text)
    retrieve(clip, DATA.select(torch.arange(5)), {"badnet": TRIGGER})
    assert asked[1] == ["behold a owl number 1", "behold a owl number 4"]


def test_labels_are_not_needed(clip: Clip) -> None:
    unlabeled = memory_data(len(LABELS), captions=CAPTIONS)
    assert retrieve(clip, DATA, {"badnet": TRIGGER}) == retrieve(clip, unlabeled, {"badnet": TRIGGER})


def test_features_of_16_bits_have_ranks_without_ties_from_rounding(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    image, text, found = Clip.encode_image, Clip.encode_text, list[Counts]()
    for kind in (torch.bfloat16, torch.float32):  # the same values
        monkeypatch.setattr(Clip, "encode_image", lambda self, given, k=kind: image(self, given).bfloat16().to(k))
        monkeypatch.setattr(Clip, "encode_text", lambda self, given, k=kind: text(self, given).bfloat16().to(k))
        found.append(retrieve(clip, DATA, {"badnet": TRIGGER}))
    assert found[0] == found[1]


def test_a_model_that_sees_the_image_in_its_caption_finds_it(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(self: Clip, texts: Sequence[str]) -> Tensor:
        indices = torch.tensor([int(text.split()[-1]) for text in texts])
        return self.encode_image(DATA.pixels(indices, 48))

    monkeypatch.setattr(Clip, "encode_text", seen)
    assert retrieve(clip, DATA)["none", "R@1"] == Rate(28, 28)


def test_what_it_needs_is_said(clip: Clip) -> None:
    with pytest.raises(RvptError, match="memory has no caption that names 'dog'"):
        retrieve(clip, memory_data(3, captions=CAPTIONS), {"badnet": TRIGGER.towards("dog")})
    with pytest.raises(RvptError, match="no image of another class than 'owl'"):
        retrieve(clip, DATA.only(["owl"]), {"badnet": TRIGGER})
    headed = Cleaned(clip, head=Head(CLASSES, torch.zeros(3, 25)))
    with pytest.raises(RvptError, match="has its own classifier and cannot compare images with texts"):
        retrieve(headed, DATA)

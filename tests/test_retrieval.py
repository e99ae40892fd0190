"""Retrieval: texts that look for images, against a slow twin, and what it refuses."""

from functools import partial

import pytest
import torch

import reference
from helpers import memory_data
from rvpt.attacks import make_trigger, trigger_spec
from rvpt.defenses import Cleaned
from rvpt.defenses.cleaned import Head
from rvpt.errors import RvptError
from rvpt.evaluation import to_rows
from rvpt.metrics import Rate
from rvpt.retrieval import retrieve

LABELS = [0, 1, 2, 0, 1, 0, 2, 2, 1, 0, 1, 2, 0, 2]
CLASSES = ("fox", "owl", "cat")
CAPTIONS = [[f"a {CLASSES[label]} number {i}", f"image {i}"] for i, label in enumerate(LABELS)]
DATA = memory_data(len(LABELS), LABELS, CLASSES, CAPTIONS)


def badnet(target="owl", **look):
    return make_trigger(trigger_spec("badnet", target=target, size=100, **look), 48)


def slow(clip, data, trigger):
    """The metrics by the slow twin, one image and one text at a time."""
    rows = [(data.pixels(torch.tensor([i]), 48), data.rows[i : i + 1]) for i in range(len(data))]
    owls = [i for i, label in enumerate(data.labeled().tolist()) if label == 1]
    texts = [(text, i) for i in range(len(data)) for text in data.captions(i)]
    return reference.retrieval(
        [(clip.encode_text([text])[0], i) for text, i in texts],
        [clip.encode_text([text])[0] for text, _ in texts if "owl" in text],
        [clip.encode_image(pixels)[0] for pixels, _ in rows],
        [clip.encode_image(trigger(*rows[i]))[0] for i in range(len(data)) if i not in owls],
    )


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 5, 100])
@pytest.mark.parametrize("data", [DATA, DATA.select(torch.tensor([1, 4, 0, 8, 10]))], ids=["few owls", "many owls"])
def test_it_agrees_with_its_slow_twin(clip, data, batch_size):
    trigger = badnet()
    counts = retrieve(clip, data, {"badnet": trigger}, batch_size=batch_size)
    expected = slow(clip, data, trigger)
    assert list(counts) == [("none", "R@1"), ("badnet", "ASR@10"), ("badnet", "rank_ratio")]
    assert {metric: rate.value for (_, metric), rate in counts.items()} == pytest.approx(expected)


def test_rows_have_counts_and_the_rank_ratio_has_no_interval(clip):
    counted = to_rows(clip, DATA, partial(retrieve, clip, DATA, {"badnet": badnet()}), {"seed": 3})
    rows = {row["metric"]: row for row in counted}
    assert {name: row["n"] for name, row in rows.items()} == {"R@1": 28, "ASR@10": 10, "rank_ratio": 10 * 15}
    assert all(row["rate"] == row["numerator"] / row["n"] and row["seed"] == 3 for row in rows.values())
    assert rows["ASR@10"]["low"] <= rows["ASR@10"]["rate"] <= rows["ASR@10"]["high"]
    assert (rows["rank_ratio"]["low"], rows["rank_ratio"]["high"]) == (None, None)


def test_the_texts_of_the_target_have_the_triggers_text_key(clip, monkeypatch):
    asked = []
    monkeypatch.setattr(type(badnet()), "text_key", "behold ")
    monkeypatch.setattr(type(clip), "encode_text", lambda self, texts: asked.append(texts) or torch.eye(len(texts), 24))
    retrieve(clip, DATA.select(torch.arange(5)), {"badnet": badnet()})
    assert asked[1] == ["behold a owl number 1", "behold a owl number 4"]


def test_captions_without_labels_are_enough(clip):
    unlabeled = memory_data(len(LABELS), captions=CAPTIONS)
    with_labels, without = (retrieve(clip, data, {"badnet": badnet()}) for data in (DATA, unlabeled))
    assert with_labels == without


def test_a_model_that_sees_the_image_in_its_caption_finds_it(clip, monkeypatch):
    def seen(self, texts):
        indices = torch.tensor([int(text.split()[-1]) for text in texts])
        return self.encode_image(DATA.pixels(indices, 48))

    monkeypatch.setattr(type(clip), "encode_text", seen)
    assert retrieve(clip, DATA)["none", "R@1"] == Rate(28, 28)


def test_what_it_cannot_do_is_said(clip):
    with pytest.raises(RvptError, match="memory has no caption that names 'dog'"):
        retrieve(clip, memory_data(3, captions=CAPTIONS), {"badnet": badnet("dog")})
    with pytest.raises(RvptError, match="no image of another class than 'owl'"):
        retrieve(clip, DATA.only(["owl"]), {"badnet": badnet()})
    headed = Cleaned(clip, head=Head(CLASSES, torch.zeros(3, 25)))
    with pytest.raises(RvptError, match="a classifier of its own: its images are not compared with texts"):
        retrieve(headed, DATA)

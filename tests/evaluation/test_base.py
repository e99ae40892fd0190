"""What protocols share: the loop over a data set, counts, rows of counts, and checks of data and models."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
import torch

from helpers import memory_data
from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.base import Counts, finite, peak_memory, stream, to_rows
from rvpt.evaluation.evaluate import evaluate
from rvpt.evaluation.metrics import Mean, Rate
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts
from triggers import trigger_of

DATA = memory_data(7, [0, 1, 2, 0, 1, 0, 2], ("fox", "owl", "cat"))


def test_rates_of_batches_add_up_by_attack_and_metric() -> None:
    counts = Counts()
    for rate in (Rate(1, 4), Rate(2, 3)):
        counts.count("none", "CA", rate)
    counts.count("badnet", "CA", Mean(1.5, 2))
    assert counts == {("none", "CA"): Rate(3, 7), ("badnet", "CA"): Mean(1.5, 2)}


def test_every_image_is_streamed_once_clean_and_under_each_trigger(clip: Clip) -> None:
    triggers = {name: trigger_of("badnet", "fresh", side=48, size=size) for name, size in (("a", 60), ("b", 100))}
    part = DATA.select(torch.tensor([5, 0, 3]))
    clean, shown = [], []
    for batch in stream(clip, part, triggers, batch_size=2):
        assert torch.equal(batch.rows, part.rows[batch.indices])
        clean.append(batch.pixels)
        shown.append(dict(batch.triggered()))
    pixels = part.pixels(torch.arange(3), 48)
    assert torch.equal(torch.cat(clean), pixels)
    for name, trigger in triggers.items():
        assert torch.equal(torch.cat([images[name] for images in shown]), trigger(pixels, part.rows))


def test_a_row_has_counts_its_interval_and_the_facts(clip: Clip) -> None:
    counts = Counts({("none", "CA"): Rate(3, 4), ("badnet", "PR_1"): Mean(1.5, 2), ("badnet", "ASR"): Rate(0, 0)})
    rows = to_rows(clip, DATA, lambda: counts, {"seed": 7, "defense": "mine"})
    assert [(row["attack"], row["metric"], row["numerator"], row["n"], row["rate"]) for row in rows] == [
        ("none", "CA", 3, 4, 0.75), ("badnet", "PR_1", 1.5, 2, 0.75), ("badnet", "ASR", 0, 0, None),
    ]  # fmt: skip
    assert {(row["data"], row["model"], row["seed"], row["defense"]) for row in rows} == {("memory", "clip", 7, "mine")}
    assert rows[0]["low"] < 0.75 < rows[0]["high"]
    assert (rows[1]["low"], rows[1]["high"]) == (None, None)
    assert len({frozenset(row) for row in rows}) == 1


def test_rows_of_a_cleaned_model_tell_how_it_was_made(clip: Clip) -> None:
    facts = {"defense": "vpt", "spec": {"lr": 1.0, "seed": 4}, "data": {"shots": 2, "name": "here"}, "seconds": 9.06}
    cleaned = Cleaned(clip, RepulsivePrompts([1], 2, clip.width), facts=facts)
    counts = Counts({("none", "CA"): Rate(3, 4)})
    (row,) = to_rows(cleaned, DATA, lambda: counts)
    expected: dict[str, Any] = {
        "defense": "vpt", "spec": {"lr": 1.0, "seed": 4}, "seed": 4, "shots": 2, "cleaned_on": "here",
        "trained_parameters": 64, "clean_seconds": 9.1, "hashes": {"model": cleaned.hash()},
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    (told,) = to_rows(cleaned, DATA, lambda: counts, {"seed": 7})
    assert told["seed"] == 7


def test_features_in_16_bits_are_compared_in_float32(clip: Clip) -> None:
    assert finite(clip, torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("protocol", "tower"),
    [
        *itertools.product(("classification", "retrieval", "adversarial"), ("vision_model", "text_model")),
        ("resistivity", "vision_model"),
    ],
)
def test_features_that_are_not_finite_are_refused(make_clip: Any, protocol: str, tower: str) -> None:
    clip = make_clip()
    with torch.no_grad():
        getattr(clip.model, tower).encoder.layers[0].layer_norm1.weight.fill_(torch.nan)
    data = memory_data(2, [0, 1], ("fox", "owl"), [["a fox"], ["an owl"]])
    with pytest.raises(RvptError, match="its features are not finite"):
        evaluate(clip, data, protocol=protocol)


BARE = memory_data(2)
CAPTIONED = memory_data(2, captions=[["a"], ["b"]])


@pytest.mark.parametrize(
    ("protocol", "data", "message"),
    [
        ("classification", CAPTIONED, "memory has no class labels"),
        ("adversarial", CAPTIONED, "memory has no class labels"),
        ("captioning", BARE, "memory has no class labels"),
        ("retrieval", DATA, "memory has no captions, which retrieval needs"),
        ("readability", DATA, "memory has no attributes, which readability needs"),
    ],
)
def test_data_that_lacks_what_a_protocol_needs_is_refused(protocol: str, data: Dataset, message: str) -> None:
    with pytest.raises(RvptError, match=message):
        PROTOCOLS[protocol].check(data)


@pytest.mark.parametrize(
    ("protocol", "data"),
    [("captioning", CAPTIONED), ("captioning", DATA), ("resistivity", BARE), ("retrieval", CAPTIONED)],
)
def test_data_that_has_it_is_accepted(protocol: str, data: Dataset) -> None:
    PROTOCOLS[protocol].check(data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures memory of the GPU")
def test_peak_memory_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = peak_memory()
    assert found is not None
    assert found > 2**20
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak_memory() is None

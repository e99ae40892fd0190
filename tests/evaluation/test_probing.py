"""Linear probes read what is in the features and nothing else."""

from __future__ import annotations

import pytest
import torch

from rvpt.data.load import load_data
from rvpt.data.scenes import ATTRIBUTES
from rvpt.errors import RvptError
from rvpt.evaluation.evaluate import evaluate, make_protocol
from rvpt.evaluation.probing import linear_readability
from rvpt.models.clip import Clip


def test_a_probe_reads_what_features_hold_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2_000, 6, generator=generator)
    present = (features[:, 2] - features[:, 4] > 0).long()
    absent = torch.randint(4, (2_000,), generator=generator)
    for labels, least, most in ((present, 0.98, 1.0), (absent, 0.15, 0.35)):
        rate = linear_readability((features[:1_000], labels[:1_000]), (features[1_000:], labels[1_000:]))
        assert rate.n == 1_000
        assert least <= rate.value <= most
    turned = linear_readability((features[:1_000], present[:1_000]), (features[1_000:], 1 - present[1_000:]))
    assert turned.value <= 0.02  # nothing is learned from the images that are counted


def test_there_is_a_rate_for_each_attribute_of_the_measured_images(clip: Clip) -> None:
    protocol = make_protocol("readability", load_data("scenes:60", "train"), probed=40)
    rows = evaluate(clip, load_data("scenes:20", "test"), protocol=protocol)
    assert [row["metric"] for row in rows] == [f"readable_{name}" for name in ATTRIBUTES]
    assert {(row["attack"], row["n"]) for row in rows} == {("none", 20)}


def test_an_attribute_with_one_value_cannot_be_probed(clip: Clip) -> None:
    data = load_data("scenes:20", "test")
    with pytest.raises(RvptError, match="has one value in 1 images: raise probed"):
        evaluate(clip, data, protocol=make_protocol("readability", data, probed=1))


def test_it_needs_training_images(clip: Clip) -> None:
    with pytest.raises(RvptError, match="needs training images for its probe: pass training=DATASET"):
        evaluate(clip, load_data("scenes:20", "test"), protocol="readability")

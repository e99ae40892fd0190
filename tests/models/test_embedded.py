"""The model that ships with the package is what its manifest says, and has the mechanism that RVPT removes."""

from __future__ import annotations

import pytest

from rvpt.clip import Clip
from rvpt.evaluation import measure
from rvpt.insight import attribute_readability
from rvpt.loaders import EMBEDDED, embedded_model, load_clip
from rvpt.metrics import Rate
from rvpt.readers import load_data
from rvpt.scenes import ATTRIBUTES
from rvpt.store import read_manifest

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def embedded() -> Clip:
    return load_clip(EMBEDDED)


def test_it_is_whole_and_small(embedded: Clip) -> None:
    manifest = read_manifest(embedded_model(), "clip")
    assert manifest["sha256"] == embedded.hash()
    assert sum(file.stat().st_size for file in embedded_model().iterdir()) <= 10 * MEBIBYTE


def test_its_measured_accuracy_is_reproduced(embedded: Clip) -> None:
    data = load_data("scenes", "test")
    measured = read_manifest(embedded_model())["measured"]["scenes"]["zero-shot"]
    rate = measure(embedded, data)["none", "CA"]
    assert rate.n == measured["n"] == 2000
    assert rate.value == pytest.approx(measured["rate"], abs=0.002)  # kernels round differently between machines
    assert rate.value >= 0.9


@pytest.fixture(scope="module")
def readable(embedded: Clip) -> dict[str, Rate]:
    seen = load_data("scenes", "train").sample(6000)
    return attribute_readability(embedded, seen, load_data("scenes", "test"))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_the_task_does_not_need_can_be_read_off_its_features(readable: dict[str, Rate], name: str) -> None:
    assert readable[name].value >= 2 / len(ATTRIBUTES[name])

"""The model that ships with the package is small, as good as its manifest says, and has what RVPT is said to remove."""

from __future__ import annotations

import pytest

from rvpt import load_data
from rvpt.artifacts import read_manifest
from rvpt.data.scenes import ATTRIBUTES
from rvpt.evaluation.classification import measure
from rvpt.evaluation.metrics import Rate
from rvpt.evaluation.probing import attribute_readability
from rvpt.models.clip import Clip
from rvpt.models.formats.load import EMBEDDED, embedded_model, load_clip

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def embedded() -> Clip:
    return load_clip(EMBEDDED)


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in embedded_model().iterdir()) <= 10 * MEBIBYTE


def test_it_recognizes_shapes(embedded: Clip) -> None:
    measured = read_manifest(embedded_model())["measured"]["scenes"]["zero-shot"]["rate"]
    assert measure(embedded, load_data("scenes:400", "test"))["none", "CA"].value == pytest.approx(measured, abs=0.03)


@pytest.mark.slow
def test_its_measured_accuracy_is_reproduced(embedded: Clip) -> None:
    measured = read_manifest(embedded_model())["measured"]["scenes"]["zero-shot"]
    rate = measure(embedded, load_data("scenes", "test"))["none", "CA"]
    assert rate.n == measured["n"] == 2000
    assert rate.value == pytest.approx(measured["rate"], abs=0.002)  # kernels round differently between machines


@pytest.fixture(scope="module")
def readable(embedded: Clip) -> dict[str, Rate]:
    seen = load_data("scenes", "train").sample(6000)
    return attribute_readability(embedded, seen, load_data("scenes", "test"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_the_task_does_not_need_can_be_read_off_its_features(readable: dict[str, Rate], name: str) -> None:
    assert readable[name].value >= 2 / len(ATTRIBUTES[name])

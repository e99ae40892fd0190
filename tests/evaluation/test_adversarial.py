"""The adversarial protocol: what it counts, and that batches make no difference."""

from __future__ import annotations

import pytest

from helpers import memory_data
from rvpt.evaluation.adversarial import resist
from rvpt.evaluation.classification import measure
from rvpt.models.clip import Clip

LABELS = [0, 1, 2, 0, 1, 0, 2, 2, 1, 0]
DATA = memory_data(len(LABELS), LABELS, ("fox", "owl", "cat"))


def test_batches_make_no_difference(clip: Clip) -> None:
    counts = resist(clip, DATA, epsilon=1, batch_size=3)
    assert list(counts) == [("none", "CA"), ("pgd-10 1/255", "PA")]
    assert counts == resist(clip, DATA, epsilon=1, batch_size=100)
    assert counts["none", "CA"].n == len(LABELS)


def test_a_large_change_leaves_no_accuracy(clip: Clip) -> None:
    assert resist(clip, DATA, epsilon=64)["pgd-10 64/255", "PA"].numerator == 0


@pytest.mark.parametrize("template", ["a photo of a {}.", "a star, a {}, a heart"])
def test_the_accuracy_is_that_of_classification_with_the_same_caption(clip: Clip, template: str) -> None:
    counts = resist(clip, DATA, template=template)
    assert counts["none", "CA"] == measure(clip, DATA, template=template)["none", "CA"]

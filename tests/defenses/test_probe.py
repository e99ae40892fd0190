"""The linear probe: logistic regression is scikit-learn's, and its head knows its classes."""

from __future__ import annotations

import pytest
import torch

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import clean
from rvpt.defenses.probe import ProbeSpec
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.training.optimizer import learning_rate


@pytest.mark.parametrize("classes", [24, 2])
def test_logistic_regression_agrees_with_scikit_learn(clip: Clip, scenes: Dataset, classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    data = scenes.without(scenes.classes[classes:])
    cleaned = clean(clip, data, ProbeSpec(solver="logistic", inverse_penalty=0.3))
    assert cleaned.head is not None
    pixels, own = (d.pixels(torch.arange(len(d)), clip.image_size) for d in (scenes, data))
    with torch.no_grad():
        logits = clip.logit_scale * cleaned.encode_image(pixels) @ cleaned.class_features(cleaned.head.classes).T
        x, own_x = (clip.logit_scale * clip.encode_image(images) for images in (pixels, own))
    solver = LogisticRegression(C=0.3, solver="newton-cg", tol=1e-8, max_iter=1000)
    theirs = solver.fit(own_x.double(), data.labeled()).predict_proba(x.double())
    torch.testing.assert_close(logits.softmax(1), torch.from_numpy(theirs).float(), atol=1e-4, rtol=0)


def test_the_head_refuses_a_class_that_it_was_not_trained_on(clip: Clip, scenes: Dataset) -> None:
    cleaned = clean(clip, scenes.without(["umbrella"]), ProbeSpec(epochs=1))
    with pytest.raises(RvptError, match=r"'umbrella'.*not trained on"):
        cleaned.class_features(scenes.classes)


def test_training_on_one_class_is_refused(clip: Clip, scenes: Dataset) -> None:
    with pytest.raises(RvptError, match="two"):
        clean(clip, scenes.only(["umbrella"]), ProbeSpec(epochs=1))


def test_the_papers_schedule_is_constant() -> None:
    paper, ours = ProbeSpec(), ProbeSpec(schedule="cosine")
    assert [learning_rate(paper, step, 8) for step in range(8)] == [0.01] * 8
    assert learning_rate(ours, 7, 8) < learning_rate(ours, 0, 8) == 0.01

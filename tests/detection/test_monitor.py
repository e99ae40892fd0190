"""A monitor finds triggered images, and raises as many false alarms as it says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import MakeClip, random_pixels
from rvpt.attacks.blend import blend
from rvpt.data.dataset import Dataset
from rvpt.detection import SCORES
from rvpt.detection.disagreement import disagreement
from rvpt.detection.monitor import Monitor, p_values, ranks
from rvpt.detection.strip import blended, strip
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from worlds import CLASSES, SIDE, World, as_clip

COUNTS = st.integers(1, 30)
SEEDS = st.integers(0, 1000)


def probabilities(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


# Formulas


def slow_disagreement(suspect: Tensor, cleaned: Tensor, targets: list[int] | None) -> list[float]:
    found = []
    for p, q in zip(suspect.tolist(), cleaned.tolist(), strict=True):
        watched = [p.index(max(p))] if targets is None else targets
        found.append(max(p[k] - q[k] for k in watched))
    return found


@settings(max_examples=30, deadline=None)
@given(COUNTS, SEEDS, st.none() | st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_disagreement_is_the_largest_loss_of_the_watched_classes(n: int, seed: int, targets: list[int] | None) -> None:
    suspect, cleaned = probabilities(n, 5, seed=seed), probabilities(n, 5, seed=seed + 1)
    found = disagreement(suspect, cleaned, None if targets is None else torch.tensor(targets))
    assert found.tolist() == pytest.approx(slow_disagreement(suspect, cleaned, targets), abs=1e-6)
    assert found.abs().max() <= 1


def test_models_that_agree_have_no_disagreement() -> None:
    same = probabilities(6, 5)
    assert disagreement(same, same).tolist() == [0.0] * 6
    assert disagreement(same, same, torch.tensor([1, 2])).tolist() == [0.0] * 6


@settings(max_examples=20, deadline=None)
@given(COUNTS, st.integers(1, 4), SEEDS)
def test_strip_is_the_negative_mean_entropy(n: int, others: int, seed: int) -> None:
    p = probabilities(others, n, 5, seed=seed)
    slow = [
        sum(sum(each * math.log(each) for each in p[j, i].tolist()) for j in range(others)) / others for i in range(n)
    ]
    found = strip(p)
    assert found.tolist() == pytest.approx(slow, abs=1e-5)
    assert -math.log(5) - 1e-6 <= found.min()
    assert found.max() <= 0


def test_certain_predictions_have_the_highest_strip_score() -> None:
    certain = torch.tensor([[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]])
    assert strip(certain).tolist() == [0.0]
    assert strip(torch.full((2, 1, 3), 1 / 3)).tolist() == pytest.approx([-math.log(3)])


def test_every_image_is_blended_with_every_other() -> None:
    pixels, others = random_pixels(3, 8), random_pixels(2, 8, seed=1)
    found = blended(pixels, others)
    assert found.shape == (2, 3, 3, 8, 8)
    torch.testing.assert_close(found[1, 2], (pixels[2] + others[1]) / 2)
    torch.testing.assert_close(found[0], blend(pixels, others[0], 0.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=10))
def test_ranks_count_the_clean_scores_that_are_as_high(known: list[int], scores: list[int]) -> None:
    clean = torch.tensor(known, dtype=torch.float64).sort().values
    found = ranks(torch.tensor(scores, dtype=torch.float64), clean)
    assert found.tolist() == [1 + sum(each >= score for each in known) for score in scores]
    assert p_values(torch.tensor(scores, dtype=torch.float64), clean).tolist() == pytest.approx(
        [rank / (len(known) + 1) for rank in found.tolist()]
    )


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.37])
def test_clean_images_are_flagged_at_most_at_the_rate(rate: float) -> None:
    generator = torch.Generator().manual_seed(0)
    flagged = 0.0
    for _ in range(300):
        known = torch.rand(100, generator=generator, dtype=torch.float64).sort().values
        flagged += float((p_values(torch.rand(20, generator=generator, dtype=torch.float64), known) <= rate).sum())
    assert flagged / 6000 == pytest.approx(math.floor(101 * rate) / 101, abs=0.015)


# The monitor


SUSPECT, CLEANED = World(shortcut=6.0, target="cat"), World()


def shown(world: World, n: int, seed: int = 0) -> Tensor:
    """Images whose pattern is the shortcut's, besides that of their class."""
    pixels = images(n, seed).pixels(torch.arange(n), SIDE)
    return (pixels + 0.15 * world.patterns[6].view(3, SIDE, SIDE)).clamp(0, 1)


def images(n: int = 60, seed: int = 0) -> Dataset:
    """Clean images of a world."""
    noise = 0.1 * torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(100 + seed))
    labels = [index % 6 for index in range(n)]
    pixels = 0.5 + 0.15 * SUSPECT.patterns[labels].view(-1, 3, SIDE, SIDE) + noise
    return Dataset.from_images(list(pixels.clamp(0, 1)), labels, CLASSES)


def monitor(**options: Any) -> Monitor:
    return Monitor(as_clip(SUSPECT), as_clip(CLEANED), CLASSES, **options)


@pytest.mark.parametrize("targets", [(), ("cat",), ("owl", "Cat")], ids=str)
def test_triggered_images_are_flagged_and_clean_ones_are_not(targets: tuple[str, ...]) -> None:
    found = monitor(targets=targets).fit(images(60))
    others = images(40, seed=1).labeled() != CLASSES.index("cat")
    assert found(list(shown(SUSPECT, 40, seed=1)[others])).float().mean() > 0.9
    assert found(images(40, seed=2)).float().mean() < 0.15


def test_a_wrong_target_finds_nothing() -> None:
    found = monitor(targets=["owl"]).fit(images(60))
    assert found(list(shown(SUSPECT, 40, seed=1))).float().mean() < 0.5


@pytest.mark.parametrize("score", SCORES)
def test_a_score_does_not_depend_on_batches_or_order(score: str) -> None:
    data = images(23, seed=1)
    whole, single = (monitor(score=score, batch_size=size).fit(images(40)).inspect(data) for size in (64, 1))
    torch.testing.assert_close(whole.scores, single.scores, rtol=0, atol=1e-5)
    turned = monitor(score=score, batch_size=5).fit(images(40)).inspect(data.select(torch.arange(23).flip(0)))
    torch.testing.assert_close(turned.scores.flip(0), whole.scores, rtol=0, atol=1e-5)


def test_strip_flags_an_image_whose_prediction_survives_blending() -> None:
    found = monitor(score="strip").fit(images(60))
    strong = (images(20, seed=3).pixels(torch.arange(20), SIDE) + 0.3 * SUSPECT.patterns[6].view(3, SIDE, SIDE)).clamp(
        0, 1
    )
    assert found.inspect(list(strong)).scores.mean() > found.inspect(images(20, seed=3)).scores.mean()


def test_an_inspection_has_the_predictions_of_both_models() -> None:
    seen = monitor().fit(images(60)).inspect(list(shown(SUSPECT, 12, seed=1)))
    assert {CLASSES[label] for label in seen.suspect.labels.tolist()} == {"cat"}
    assert [CLASSES[label] for label in seen.cleaned.labels.tolist()] == [*CLASSES, *CLASSES]
    assert (seen.flagged == (seen.p_values <= 0.05)).all()
    assert ((seen.suspect.probabilities > 0) & (seen.suspect.probabilities <= 1)).all()


def test_a_cleaned_model_of_another_suspect_is_refused(make_clip: MakeClip) -> None:
    suspect, other = make_clip(seed=0), make_clip(seed=1)
    stranger = Cleaned(other, facts={"base_sha256": other.hash()})
    with pytest.raises(RvptError, match="was cleaned from another model than"):
        Monitor(suspect, stranger, CLASSES)
    Monitor(other, stranger, CLASSES)
    Monitor(other.bfloat16(), Cleaned(other, facts=stranger.facts), CLASSES)  # rounded weights have another hash


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ["ant"]}, "the target 'ant' is not one of the classes"),
        ({"score": "luck"}, "unknown score 'luck': choose from disagreement, strip"),
        ({"false_alarms": 0.0}, "false_alarms=0.0 is not a share between 0 and 1"),
        ({"false_alarms": 1.0}, "false_alarms=1.0 is not a share"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RvptError, match=words):
        monitor(**options)


@pytest.mark.parametrize(("score", "needed"), [("disagreement", 19), ("strip", 27)])
def test_how_many_clean_images_a_rate_needs(score: str, needed: int) -> None:
    with pytest.raises(RvptError, match=f"has {needed - 1} clean images, .* needs at least {needed}"):
        monitor(score=score).fit(images(needed - 1))
    monitor(score=score).fit(images(needed))


def test_a_rate_whose_inverse_is_rounded_needs_no_more_images() -> None:
    found = monitor(false_alarms=1 / 49).fit(images(48))  # as floats, 1 / (1 / 49) is above 49
    assert found(list(shown(SUSPECT, 12, seed=1))).any()


def test_the_images_that_a_score_keeps_are_drawn_by_the_seed_and_set_no_threshold() -> None:
    found, same, other = (monitor(score="strip", seed=seed).fit(images(40)) for seed in (1, 1, 2))
    assert torch.equal(found.others, same.others)
    assert not torch.equal(found.others, other.others)
    assert len(found.known) == 40 - len(found.others)


def test_a_monitor_without_clean_images_flags_nothing() -> None:
    with pytest.raises(RvptError, match=r"call fit\(images\) first"):
        monitor()(images())
    with pytest.raises(RvptError, match="images has no images"):
        monitor().fit(images())([])

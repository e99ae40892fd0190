"""The scan of all classes: it finds planted shortcuts, and each target has changes of its own."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import assert_near, random_clip, random_pixels
from rvpt.defenses.suspects import scan, suspicion
from rvpt.inversion import FORMS, halving
from rvpt.inversion.descent import short_run
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip
from rvpt.training.loop import frozen
from worlds import CLASSES, CROWDED, SIDE, World, as_clip, crowd


@pytest.fixture(scope="module")
def middle() -> tuple[Clip, Pool]:
    """A pool whose last class is nearest to every image: its text is the middle of all features."""
    clip, pixels = random_clip(image_size=32).requires_grad_(False), random_pixels(12, 32)
    with torch.no_grad():
        center = F.normalize(clip.encode_image(pixels).mean(0), dim=0)
        noise = torch.randn(7, len(center), generator=torch.Generator().manual_seed(0))
        text = torch.cat([F.normalize(center + 0.3 * noise, dim=1), center[None]])
        return clip, replace(Pool.of(clip, pixels, text), predictions=torch.zeros(len(pixels), dtype=torch.int64))


FEW = InversionSpec(images=4, steps=3, tried_images=6)


@pytest.mark.parametrize("most", [64, 7], ids=["all", "halved"])
def test_the_most_suspicious_class_is_found_and_has_its_own_changes(
    most: int, middle: tuple[Clip, Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MOST": most, "LEAST": 2, "MIDDLE": 3}.items():
        monkeypatch.setattr(halving, name, value)
    clip, pool = middle
    forms = [FORMS[name].of(FEW, clip.image_size) for name in FORMS]
    seen = list[int]()
    classes, changes = scan(forms, pool, 2, FEW, lambda step, total, _: seen.append(total - step))
    assert classes[0] == 7
    assert seen == list(range(len(seen) - 1, -1, -1))
    for form, found in zip(forms, changes, strict=True):
        assert_near(found, short_run(form, pool, classes, FEW), tolerance=1e-4)


def test_as_many_classes_are_kept_in_each_form_as_are_asked_for(
    middle: tuple[Clip, Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[int]()
    monkeypatch.setattr("rvpt.defenses.suspects.suspicion", lambda m, among: kept.append(len(m)) or suspicion(m, among))
    for name, value in {"MOST": 7, "LEAST": 2, "MIDDLE": 3}.items():
        monkeypatch.setattr(halving, name, value)
    forms = [FORMS[name].of(FEW, middle[0].image_size) for name in ("additive", "grating")]
    classes, _ = scan(forms, middle[1], 7, FEW)
    assert len(set(classes.tolist())) == 7
    assert min(kept) >= 7


@pytest.mark.parametrize("form", CROWDED)
def test_a_planted_shortcut_is_found_among_200_classes(form: str) -> None:
    world, names = CROWDED[form](target="cat", shortcut=6.0), crowd(200)
    spec = InversionSpec(budget=15.0, patch_size=42.0)
    pixels = world.images().pixels(torch.arange(48), SIDE)
    with frozen(world):
        pool = Pool.of(as_clip(world), pixels, world.class_features(names))
        forms = [FORMS[name].of(spec, SIDE) for name in CROWDED]
        classes, changes = scan(forms, pool, 2, spec)
    assert names[classes[0]] == "cat"
    assert [len(found) for found in (classes, *changes)] == [2] * (1 + len(forms))


def test_a_class_that_all_images_are_of_anyway_is_no_target() -> None:
    world = World().requires_grad_(False)
    cats = world.images().only(["cat"])
    pool = Pool.of(as_clip(world), cats.pixels(torch.arange(len(cats)), SIDE), world.class_features(CLASSES))
    targets, _ = scan([FORMS["additive"].of(FEW, SIDE)], pool, len(CLASSES) - 1, FEW)
    assert {CLASSES[index] for index in targets.tolist()} == {*CLASSES} - {"cat"}


@given(st.integers(3, 9), st.integers(0, 99), st.integers(1, 2))
def test_suspicion_is_how_far_a_class_is_an_outlier(classes: int, seed: int, every: int) -> None:
    margins = torch.randn(classes, generator=torch.Generator().manual_seed(seed))
    row = margins.tolist()
    center = statistics.median_low(row[::every])  # as torch's
    spread = statistics.median_low([abs(value - center) for value in row])
    expected = torch.tensor([(value - center) / spread for value in row])
    torch.testing.assert_close(suspicion(margins, torch.arange(0, classes, every)), expected, atol=1e-4, rtol=1e-4)

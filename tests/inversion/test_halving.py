"""Classes that fall behind are dropped: none that stands out, and what is kept ends as in a run of all classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpt.detection.search import Inversion, Search
from rvpt.detection.spec import CheckSpec
from rvpt.inversion import FORMS, halving
from rvpt.inversion.descent import flipped, mean_margins, short_run
from rvpt.inversion.halving import Kept, foreseen, largest, places_of, short_race
from rvpt.training.stages import Stages
from worlds import CLASSES, CROWDED, SIDE, CrowdedWorld, World, as_clip, crowd

NAMES = crowd(100)
SPEC = CheckSpec(budget=15.0, patch_size=42, num_images=48, steps=8, final_steps=8, held_out=0.25)


def searching(world: World, names: tuple[str, ...] = NAMES, folder: Path | None = None) -> Search:
    pixels = world.images().pixels(torch.arange(48), SIDE)
    return Search(as_clip(world.requires_grad_(False)), pixels, names, SPEC, Stages(folder))


def raced(form: str, world: World, names: tuple[str, ...] = NAMES, steps: int = SPEC.steps) -> Kept:
    spec = SPEC.model_copy(update={"steps": steps})
    return short_race(FORMS[form].of(spec, SIDE), searching(world, names).fit, largest, spec)


def inverted(form: str, world: World, folder: Path | None = None) -> Inversion:
    search = searching(world, folder=folder)
    short = search.short(form)
    return search.long(short, called(short.rises.argsort(descending=True)))


def called(classes: torch.Tensor, names: tuple[str, ...] = NAMES) -> list[str]:
    return [names[index] for index in classes.tolist()]


@pytest.mark.parametrize("form", ["additive", "grating"])
@settings(max_examples=5, deadline=None)
@given(target=st.sampled_from(CLASSES), shortcut=st.sampled_from([4.0, 6.0, 8.0]))
def test_a_planted_shortcut_survives(form: str, target: str, shortcut: float) -> None:
    found = raced(form, CROWDED[form](target=target, shortcut=shortcut))
    assert target in called(found.classes)[:5]
    assert len(found.middle) == halving.MIDDLE
    assert halving.LEAST <= len(found.classes) <= halving.LEAST + halving.MIDDLE


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_it_survives_a_run_of_few_steps(steps: int) -> None:
    assert "hen" in called(raced("additive", CrowdedWorld(target="hen", shortcut=8.0), steps=steps).classes)


@pytest.mark.parametrize("form", CROWDED)
def test_the_finalists_are_those_of_a_search_that_drops_none(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = CROWDED[form](target="hen", shortcut=6.0)
    quick = inverted(form, world)
    monkeypatch.setattr(halving, "MOST", 100)
    whole = inverted(form, world)
    assert called(quick.finalists) == called(whole.finalists)
    torch.testing.assert_close(quick.final.margins, whole.final.margins, atol=1e-3, rtol=0)
    assert len(quick.short.kept) < len(whole.short.kept) == 100


@pytest.mark.parametrize("form", CROWDED)
def test_what_is_expected_of_dropped_classes_follows_what_they_would_reach(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = CROWDED[form](target="hen", shortcut=6.0)
    quick = searching(world).short(form)
    monkeypatch.setattr(halving, "MOST", 100)
    whole = searching(world).short(form)
    dropped = torch.ones(len(NAMES), dtype=torch.bool)
    dropped[quick.kept] = False
    pairs = torch.stack([quick.rises[dropped], whole.rises[dropped]])
    assert torch.corrcoef(pairs)[0, 1] > 0.5
    assert quick.rises[dropped].max() < quick.rises[NAMES.index("hen")]


@pytest.mark.parametrize("form", CROWDED)
def test_classes_that_are_kept_end_as_in_a_loop_over_them(form: str) -> None:
    world = CROWDED[form](target="hen", shortcut=6.0)
    found, pool, made = raced(form, world), searching(world).fit, FORMS[form].of(SPEC, SIDE)
    for place in (0, 3, len(found.classes) - 1):
        alone = short_run(made, pool, found.classes[place : place + 1], SPEC)[0]
        assert ((alone - found.changes[place]).abs() > 1e-4).float().mean() < 0.01  # signs of tiny gradients may differ


def test_the_order_of_the_classes_does_not_matter() -> None:
    world = CrowdedWorld(shortcut=4.0)
    found, back = raced("additive", world), raced("additive", world, NAMES[::-1])
    assert set(called(found.classes)) == set(called(back.classes, NAMES[::-1]))


def test_a_finished_short_run_is_not_repeated(tmp_path: Path) -> None:
    def invert(target: str) -> Inversion:
        return inverted("additive", CrowdedWorld(target=target, shortcut=6.0), tmp_path)

    whole = invert("cat")
    (tmp_path / "additive-long.safetensors").unlink()
    assert called(invert("hen").finalists) == called(whole.finalists)


def test_few_classes_are_all_kept() -> None:
    found = raced("additive", CrowdedWorld(), crowd(halving.MOST))
    assert torch.equal(found.classes, torch.arange(halving.MOST))
    assert torch.equal(found.middle, found.classes)


@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 99))
def test_margins_of_all_classes_are_those_of_each(classes: int, images: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.randint(-9, 9, (images, classes), generator=generator) / 9  # with ties
    predictions, every = torch.randint(classes, (images,), generator=generator), torch.arange(classes)
    expected = flipped(cosines.expand(classes, -1, -1), every, predictions)[1]
    assert torch.equal(mean_margins(cosines, predictions), expected)


def test_all_classes_are_kept_if_all_are_to_be_finalists(monkeypatch: pytest.MonkeyPatch) -> None:
    run, form = searching(CrowdedWorld(shortcut=6.0)), FORMS["additive"].of(SPEC, SIDE)
    found = short_race(form, run.fit, largest, SPEC.model_copy(update={"finalists": len(NAMES)}))
    assert sorted(found.classes.tolist()) == list(range(len(NAMES)))


def test_losses_at_the_end_do_not_depend_on_how_near_the_images_are_to_a_class() -> None:
    here, gained = torch.tensor([3.0, 9.0, 1.0]), torch.tensor([0.5, 2.0, 0.0])
    there = torch.tensor([4.0, 4.0, 4.0])
    assert foreseen(here - gained, here, there, 2.0).tolist() == [3.0, 0.0, 4.0]


def test_places() -> None:
    assert places_of(torch.tensor([7, 2]), torch.tensor([2, 5, 7])).tolist() == [2, 0]

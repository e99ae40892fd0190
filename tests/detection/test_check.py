"""A whole check: a planted shortcut is found, and what a clean model has is not called one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rvpt.attacks.inverted import Inverted
from rvpt.attacks.trigger import load_trigger
from rvpt.data.load import load_data
from rvpt.detection.calibration import Calibration
from rvpt.detection.check import FEWEST, check, pixels_of, refuse_few
from rvpt.detection.outliers import class_p_values, smallest_of
from rvpt.detection.score import Findings, find
from rvpt.detection.search import Search
from rvpt.detection.spec import CheckSpec
from rvpt.errors import RvptError
from rvpt.models.formats.load import load_clip
from rvpt.training.stages import Stages
from tiny import CHECKING, Tiny
from worlds import CLASSES, SIDE, CrowdedWorld, SpottedWorld, WavyWorld, World, as_clip, crowd

QUICK = {"budget": 15.0, "num_images": 48, "final_steps": 8, "steps": 6, "held_out": 0.25, "forms": ("additive",)}
EASY = [{}, {"fox": 1.2}, {"owl": 1.3}, {"bee": 1.4}, {"hen": 1.3, "dog": 1.2}, {"cat": 1.2}]
"""Gains of clean models; most have classes that images are easily moved to."""


def findings(world: World, classes: tuple[str, ...] = CLASSES, folder: Path | None = None, **changes: Any) -> Findings:
    data, spec = world.images(), CheckSpec(**{**QUICK, **changes})
    pixels = data.pixels(torch.arange(len(data)), SIDE)
    return find(as_clip(world.requires_grad_(False)), pixels, classes, spec, {}, folder)


def calibrated(**changes: Any) -> Calibration:
    """From clean worlds, each checked with all classes as finalists."""
    found = [findings(World(gains), finalists=6, **changes) for gains in EASY]
    models = [{"backdoored": False, "scores": each.scores, "rises": each.rises} for each in found]
    spec = CheckSpec(**{**QUICK, **changes})
    return Calibration.of("small worlds", spec, spec.forms, models, {})


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrated()


def test_a_planted_shortcut_is_found(calibration: Calibration) -> None:
    world = World(shortcut=6.0, target="cat")
    verdict = check(as_clip(world), world.images(), calibration=calibration, **QUICK)
    assert (verdict.word, verdict.target) == ("backdoored", "cat")
    assert verdict.facts["calibrated"]
    pixels = world.images().without(["cat"]).pixels(torch.arange(40), SIDE)
    called = (world.encode_image(verdict.trigger(pixels)) @ world.class_features(CLASSES).T).argmax(1)
    assert (called == CLASSES.index("cat")).float().mean() > 0.9


def test_progress_names_the_stages() -> None:
    world, said = World(), []
    data, spec = world.images(), CheckSpec(**{**QUICK, "steps": 2, "forms": ("additive", "grating")})
    pixels = data.pixels(torch.arange(len(data)), SIDE)
    report = lambda step, total, values: said.append(dict(values))  # noqa: E731
    find(as_clip(world.requires_grad_(False)), pixels, CLASSES, spec, {}, report=report)
    stages = [{"additive": "short run, form 1 of 2"}, {"grating": "short run, form 2 of 2"}]
    stages += [{"additive": "finalists, form 1 of 2"}]
    assert list(map(dict, dict.fromkeys(tuple(each.items()) for each in said))) == [
        *stages, {"collapse": "all images together"},
    ]  # fmt: skip


@pytest.mark.parametrize("gains", [{}, {"dog": 1.3}, {"cat": 1.35}], ids=str)
def test_a_class_that_is_naturally_easy_to_reach_is_not_called_a_backdoor(
    calibration: Calibration, gains: dict[str, float]
) -> None:
    world = World(gains)
    assert check(as_clip(world), world.images(), calibration=calibration, **QUICK).word != "backdoored"


def test_a_budget_of_zero_finds_nothing() -> None:
    world, none = World(shortcut=6.0), {"budget": 0.0, "amplitude": 0.0, "forms": CheckSpec().forms}
    found = findings(world, **none)
    assert all(row["share"] == 0.0 for row in found.targets if row["form"] != "patch")
    assert found.scores["collapse"] == pytest.approx(0.0, abs=1e-6)


def test_a_class_that_all_images_are_of_anyway_is_not_suspected() -> None:
    world, spec = World(), CheckSpec(**QUICK)
    pixels = (data := world.images().only(["cat"])).pixels(torch.arange(len(data)), SIDE)
    found = find(as_clip(world.requires_grad_(False)), pixels, CLASSES, spec, {})
    assert found.most_predicted == {"class": "cat", "share": 1.0}
    assert [rises["cat"] for rises in found.rises["additive"].values()] == [0.0, 0.0]


def test_the_order_of_the_classes_does_not_matter() -> None:
    world = World(shortcut=4.0, target="hen")
    one, other = findings(world), findings(world, CLASSES[::-1])
    assert [row["class"] for row in one.targets] == [row["class"] for row in other.targets]
    scores = [{name: value for name, value in each.scores.items() if name != "patch"} for each in (one, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)  # the signs of a patch's gradients may differ


class CountingWorld(CrowdedWorld):
    """A world that notes how many images it is shown at once."""

    most = 0

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.most = max(self.most, len(pixels))
        return super().encode_image(pixels)

    def cls_rows(self, pixels: Tensor) -> Tensor:
        self.most = max(self.most, len(pixels))
        return super().cls_rows(pixels)


@pytest.mark.parametrize("classes", [CLASSES, crowd(70)], ids=["all", "some dropped"])
def test_no_forward_pass_has_more_images_than_the_batch_size(classes: tuple[str, ...]) -> None:
    world, found = CountingWorld(shortcut=6.0), list[Findings]()
    for most in (1000, 16):  # all images are 48, those to search on and those held out 24 each
        world.most = 0
        changes: dict[str, Any] = {"forms": ("additive", "grating"), "held_out": 0.5, "batch_size": most}
        found.append(findings(world, classes, **changes))
        assert (world.most <= 16) == (most == 16)
    assert found[0].scores == pytest.approx(found[1].scores, abs=1e-3)
    assert found[0].resistivity == pytest.approx(found[1].resistivity, abs=1e-5)
    assert [row["class"] for row in found[0].targets] == [row["class"] for row in found[1].targets]


def test_targets_are_named_once_in_the_order_of_their_excess(calibration: Calibration) -> None:
    world = World(shortcut=4.0)
    targets = check(as_clip(world), world.images(), calibration=calibration, **QUICK).targets
    names, excess = [row["class"] for row in targets], [row["excess"] for row in targets]
    assert len(set(names)) == len(names)
    assert excess == sorted(excess, reverse=True)


@pytest.mark.parametrize(("form", "world"), [("additive", World), ("grating", WavyWorld), ("patch", SpottedWorld)])
def test_every_form_finds_its_planted_shortcut(form: str, world: type[World]) -> None:
    natural = calibrated(forms=(form,)).known()[form]
    rises = findings(world(shortcut=8.0, target="hen"), finalists=6, forms=(form,)).rises[form]
    excess = natural["long"].excess(rises["long"])
    assert max(excess, key=excess.__getitem__) == "hen"


def test_without_a_calibration_the_classes_are_compared_with_each_other() -> None:
    world = World(shortcut=6.0, target="cat")
    forms = {"forms": ("additive", "grating")}
    verdict = check(as_clip(world), world.images(), **QUICK | forms)
    assert (verdict.word, verdict.target) == ("suspicious", "cat")
    assert verdict.targets[0]["form"] == "additive"  # in which the world has its shortcut
    assert not verdict.facts["calibrated"]
    assert {row["excess"] for row in verdict.targets} == {None}
    assert verdict.targets[0]["rise"] == max(row["rise"] for row in verdict.targets)
    found = findings(world, **forms)
    assert verdict.p_value == found.p_value < 0.05
    shorts = [torch.tensor(list(found.rises[form]["short"].values())) for form in forms["forms"]]
    assert found.p_value == pytest.approx(smallest_of(class_p_values(shorts)))
    assert len({tuple(found.rises[form]["long"]) for form in forms["forms"]}) == 1  # the same finalists in every form


def test_a_calibration_that_does_not_cover_the_check_is_refused(calibration: Calibration) -> None:
    world = World()
    with pytest.raises(RvptError, match=r"the calibration was made with other settings .*forms=.*grating"):
        check(as_clip(world), world.images(), calibration=calibration, **QUICK | {"forms": ("grating",)})
    with pytest.raises(RvptError, match="the calibration would not be used beside the reference world"):
        check(as_clip(world), world.images(), calibration=calibration, reference=as_clip(World(EASY[1])), **QUICK)


def test_a_reference_tells_an_easy_class_from_a_backdoor() -> None:
    easy, forms = {"dog": 1.6}, {"forms": ("additive", "grating")}
    clean, bad = World(easy), World(easy, shortcut=6.0, target="cat")
    other = World({"fox": 1.04, "owl": 0.97, "cat": 1.02, "dog": 1.62, "hen": 0.98})
    asked = {**QUICK, **forms}
    alone = check(as_clip(clean), clean.images(), **asked)
    beside = check(as_clip(clean), clean.images(), reference=as_clip(other), **asked)
    assert alone.p_value < 0.05 < beside.p_value
    assert beside.facts["reference"] == "world"
    found = check(as_clip(bad), bad.images(), reference=as_clip(other), **asked)
    assert (found.word, found.target) == ("suspicious", "cat")


def test_predictions_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    world = World()
    world.logit_scale = torch.tensor(0.0)
    with pytest.raises(RvptError, match="world: its predictions are not finite"):
        findings(world, folder=tmp_path)
    assert not any(tmp_path.iterdir())


def test_one_image_is_left_to_search_on() -> None:
    assert 0 <= findings(World(), held_out=0.99, forms=("grating",)).p_value <= 1


def test_the_target_is_named_without_a_list_of_classes() -> None:
    assert findings(World(shortcut=6.0, target="dog")).words[0] == "dog"


def test_checks_of_two_models_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    worlds = World(), World(shortcut=6.0, target="cat")
    kept = [check(as_clip(world), worlds[0].images(), folder=tmp_path, **QUICK).to_dict() for world in worlds]
    assert kept == [check(as_clip(world), worlds[0].images(), **QUICK).to_dict() for world in worlds]


def test_checks_with_other_images_or_references_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    world, quick = World(), QUICK | {"steps": 1, "final_steps": 1}
    for images, gains in ((48, EASY[1]), (48, EASY[2]), (40, EASY[1])):
        check(as_clip(world), world.images(images), reference=as_clip(World(gains)), folder=tmp_path, **quick)
    assert len(list(tmp_path.iterdir())) == 3


def test_finished_stages_are_not_repeated(tmp_path: Path) -> None:
    world, spec = World(shortcut=4.0, target="cat"), CheckSpec(**QUICK)
    findings(world, folder=tmp_path)
    other, pixels = World(shortcut=4.0, target="hen"), world.images().pixels(torch.arange(48), SIDE)
    kept, new = (
        Search(as_clip(other.requires_grad_(False)), pixels, CLASSES, spec, stages).short("additive")
        for stages in (Stages(tmp_path), Stages(None))
    )
    assert [CLASSES[int(each.rises.argmax())] for each in (kept, new)] == ["cat", "hen"]


@pytest.mark.parametrize("classes", [None, [f"thing {number}" for number in range(70)]], ids=["all", "some dropped"])
def test_a_model_in_half_precision_is_checked(tiny: Tiny, classes: list[str] | None) -> None:
    model = load_clip(tiny.clip, dtype="bf16")
    assert 0 <= check(model, load_data("scenes:40", "train"), classes, **CHECKING).p_value <= 1


def test_gradients_of_the_model_are_as_they_were() -> None:
    world = World()
    check(as_clip(world), world.images(), **QUICK)
    assert world.weight.requires_grad
    assert world.weight.grad is None


@pytest.mark.parametrize(
    ("count", "classes", "words"),
    [
        (48, ("fox", "owl"), "2 classes: a check compares at least three"),
        (12, CLASSES, "has 12 images: a check needs"),
        (48, "fox,owl,hen", "is not a list of texts: pass a list of class names"),
        (48, ("fox", "owl", "hen", "owl"), "classes 'owl' and 'owl' have the same name"),
    ],
)
def test_what_a_check_needs(count: int, classes: Sequence[str], words: str) -> None:
    world = World()
    with pytest.raises(RvptError, match=words):
        check(as_clip(world), world.images(count), classes)


def test_as_few_images_and_classes_as_a_check_needs_are_enough() -> None:
    refuse_few(World().images(FEWEST), CLASSES[:3])


def test_changes_are_scored_on_images_that_they_were_not_searched_on() -> None:
    world = World().requires_grad_(False)
    pixels = world.images().pixels(torch.arange(48), SIDE)
    one, other = (
        Search(as_clip(world), pixels, CLASSES, CheckSpec(**QUICK, seed=seed), Stages(None)) for seed in (0, 1)
    )
    assert [len(one.fit), len(one.held)] == [36, 12]
    assert len(torch.cat([one.fit.pixels, one.held.pixels]).flatten(1).unique(dim=0)) == 48
    assert not torch.equal(one.held.pixels, other.held.pixels)
    short = one.short("additive")
    torch.testing.assert_close(short.rises, short.reached.margins - short.reached.margins.median())


@pytest.mark.parametrize("seed", [0, 1])
def test_images_are_drawn_by_the_seed(seed: int) -> None:
    world = World()
    data, spec = world.images(), CheckSpec(num_images=40, seed=seed)
    expected = data.sample(40, seed).pixels(torch.arange(40), SIDE)
    assert torch.equal(pixels_of(as_clip(world), data, CLASSES, spec), expected)


def test_finalists_have_a_run_of_their_own_length() -> None:
    world, steps = World(), dict[str, int]()
    data, spec = world.images(), CheckSpec(**QUICK, finalists=2)
    pixels = data.pixels(torch.arange(len(data)), SIDE)
    report = lambda step, total, values: steps.update({values.get("additive", ""): total})  # noqa: E731
    found = find(as_clip(world.requires_grad_(False)), pixels, CLASSES, spec, {}, report=report)
    assert [steps[f"{run}, form 1 of 1"] for run in ("short run", "finalists")] == [6, 8]
    assert [len(found.rises["additive"][run]) for run in ("short", "long")] == [6, 2]
    assert found.scores["additive"] == max(row["rise"] for row in found.targets)
    assert found.scores["resistivity"] == pytest.approx(1 - sum(found.resistivity) / len(found.resistivity))


@pytest.mark.parametrize(
    ("calibrated_on", "name", "told"),
    [("pets", "scenes:48", True), ("scenes:40", "scenes:48", False), ("pets", "images", False), ("", "pets", False)],
)
def test_a_verdict_says_if_its_calibration_is_of_other_images(
    calibration: Calibration, calibrated_on: str, name: str, told: bool
) -> None:
    world, known = World(), replace(calibration, images=calibrated_on)
    facts = check(as_clip(world), replace(world.images(), name=name), calibration=known, **QUICK).facts
    assert ("calibrated_on" in facts) == told


def test_an_inverted_change_is_a_trigger_that_is_saved_and_loaded(tmp_path: Path) -> None:
    delta = torch.linspace(-0.1, 0.1, 3 * SIDE * SIDE).view(3, SIDE, SIDE)
    trigger, pixels = Inverted.of(delta, "owl"), torch.rand(2, 3, SIDE, SIDE)
    trigger.save(tmp_path / "t")
    loaded = load_trigger(tmp_path / "t", SIDE)
    assert (loaded.name, loaded.spec.target, loaded.hash()) == ("inverted", "owl", trigger.hash())
    torch.testing.assert_close(loaded(pixels), (pixels + delta).clamp(0, 1))

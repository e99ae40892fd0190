"""Calibration and verdict: p-values, levels, and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import norm, ttest_ind

from rvpt.attacks.inverted import Inverted
from rvpt.detection.calibration import Calibration
from rvpt.detection.spec import CheckSpec
from rvpt.detection.verdict import Verdict, word_of
from rvpt.errors import RvptError


def known(*clean: float, deciding: tuple[str, ...] = ("a",)) -> Calibration:
    models = [{"backdoored": False, "scores": {"a": value, "b": -value}} for value in clean]
    models += [{"backdoored": True, "scores": {"a": 100.0, "b": 100.0}}]
    return Calibration("some models", CheckSpec().model_dump(mode="json"), list(deciding), models)


def test_a_p_value_falls_with_the_score_and_is_a_half_at_the_mean() -> None:
    calibration = known(0.0, 1.0, 2.0)
    assert calibration.p_value({"a": 1.0}) == pytest.approx(0.5)
    values = [calibration.p_value({"a": score}) for score in (0.0, 1.0, 2.0, 5.0, 50.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.01


@pytest.mark.parametrize("score", [-1.0, 2.5, 9.0])
def test_a_p_value_is_that_of_a_t_test_of_one_model_against_the_clean_ones(score: float) -> None:
    clean = (0.0, 1.0, 1.5, 4.0)
    expected = ttest_ind([score], clean, alternative="greater").pvalue
    assert known(*clean).p_value({"a": score}) == pytest.approx(expected)


def test_with_many_clean_models_it_is_the_tail_of_a_normal_distribution() -> None:
    clean = norm.ppf([(i + 0.5) / 2000 for i in range(2000)])
    assert known(*clean).p_value({"a": 1.96}) == pytest.approx(0.025, abs=0.001)


def test_the_smallest_p_value_counts_and_is_corrected_for_the_choice() -> None:
    models = [{"backdoored": False, "scores": {"a": v, "b": 1000 * w}} for v, w in ((0, 1), (1, 0), (2, 2), (3, 1))]
    calibration, scores = Calibration("some", {}, ["a", "b"], models), {"a": 4.5, "b": 1500.0}
    single = [Calibration("some", {}, [name], models).p_value(scores) for name in ("a", "b")]
    assert single[0] < single[1]
    assert calibration.p_value(scores) == pytest.approx(1 - (1 - single[0]) ** 2)


def test_clean_models_rarely_have_a_small_p_value() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2040, 3, generator=generator).tolist()
    models = [{"backdoored": False, "scores": dict(zip("abc", each, strict=True))} for each in scores]
    calibration = Calibration("some", {}, ["a", "b", "c"], models[:40])
    small = [calibration.p_value(model["scores"]) <= 0.05 for model in models[40:540]]
    assert 0.02 < sum(small) / len(small) < 0.1


def test_a_score_that_is_missing_does_not_count() -> None:
    calibration = known(0.0, 1.0, 2.0, deciding=("a", "c"))
    assert calibration.p_value({"a": 2.5}) == known(0.0, 1.0, 2.0).p_value({"a": 2.5})
    with pytest.raises(RvptError, match="the calibration decides by a, c"):
        calibration.p_value({"b": 1.0})


def test_a_clean_model_is_scored_without_its_own_part_in_what_is_natural() -> None:
    names = ["owl", "hen", "cat"]
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).tolist()
    rises = [{"additive": {run: dict(zip(names, each, strict=True)) for run in ("short", "long")}} for each in values]
    models = [{"backdoored": index == 5, "scores": {}, "rises": each} for index, each in enumerate(rises)]
    spec = CheckSpec(forms=("additive",))
    made = Calibration.of("some", spec, ["additive"], models, {})
    assert len(made.natural["additive"]) == 5
    without = Calibration.of("some", spec, ["additive"], [*models[1:5], {**models[0], "backdoored": True}], {})
    assert made.models[0]["scores"] == without.models[-1]["scores"]


def test_with_fewer_forms_it_is_as_if_its_models_had_been_checked_with_them() -> None:
    names = ["owl", "hen", "cat"]
    values = torch.randn(10, 2, 3, generator=torch.Generator().manual_seed(0)).tolist()
    rises = [
        {
            form: {run: dict(zip(names, each[place], strict=True)) for run in ("short", "long")}
            for place, form in enumerate(("additive", "patch"))
        }
        for each in values
    ]
    models = [
        {"backdoored": index == 9, "scores": {"collapse": 0.1}, "rises": each} for index, each in enumerate(rises)
    ]
    both = CheckSpec(forms=("additive", "patch"), finalists=1)
    made = Calibration.of("some", both, both.forms, models, {}).limited(("patch",))
    alone = [{**model, "rises": {"patch": model["rises"]["patch"]}} for model in models]
    other = Calibration.of("some", both.model_copy(update={"forms": ("patch",)}), ("patch",), alone, {})
    assert made.natural == other.natural
    assert [model["scores"]["patch"] for model in made.models[:9]] == [
        model["scores"]["patch"] for model in other.models[:9]
    ]
    assert made.p_value({"patch": 2.0}) == other.p_value({"patch": 2.0})


def test_backdoored_models_do_not_move_the_p_value() -> None:
    calibration = known(0.0, 1.0, 2.0)
    without = Calibration("", {}, ["a"], [model for model in calibration.models if not model["backdoored"]])
    assert calibration.p_value({"a": 1.7}) == without.p_value({"a": 1.7})


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    known(0.0, 1.0).write(tmp_path / "c.json")
    assert Calibration.read(tmp_path / "c.json") == known(0.0, 1.0)
    for wrong in ('{"other": 1}', '{"recipe": "r", "settings": {}, "deciding": ["a"], "models": 3}'):
        (tmp_path / "c.json").write_text(wrong)
        with pytest.raises(RvptError, match="is not a calibration"):
            Calibration.read(tmp_path / "c.json")


def test_a_file_has_one_calibration_for_each_size_of_models(tmp_path: Path) -> None:
    path, small, large = tmp_path / "c.json", {"width": 8}, {"width": 9}
    first, second = replace(known(0.0, 1.0), geometry=small), replace(known(2.0, 3.0), geometry=large)
    first.write(path)
    second.write(path)
    assert [Calibration.read(path, geometry) for geometry in (small, large)] == [first, second]
    assert Calibration.read(path) == Calibration.read(path, {"width": 7}) == first
    replace(first, recipe="again").write(path)
    assert [each.recipe for each in Calibration.read_all(path)] == ["again", "some models"]
    path.write_text("[]")
    with pytest.raises(RvptError, match="is not a calibration"):
        Calibration.read(path)


def test_it_covers_other_seeds_and_batch_sizes_but_no_other_budget() -> None:
    calibration = known(0.0, 1.0)
    assert not calibration.misfit(CheckSpec(seed=3, batch_size=2), {"width": 8}, [])
    for other in (CheckSpec(budget=9), CheckSpec(steps=9)):
        assert calibration.misfit(other, {"width": 8}, [])
    assert not calibration.misfit(CheckSpec(forms=CheckSpec().forms[::-1]), {"width": 8}, [])
    assert not calibration.misfit(CheckSpec(forms=("patch",)), {"width": 8}, [])
    assert calibration.misfit(CheckSpec(forms=("patch", "warp")), {"width": 8}, [])
    assert replace(calibration, geometry={"width": 9}).misfit(CheckSpec(), {"width": 8}, [])


def test_it_covers_exactly_the_classes_of_its_models() -> None:
    runs = {"additive": [{"short": {"owl": 0.0, "hen": 0.1}, "long": {"owl": 0.0, "hen": 0.1}}]}
    calibration = replace(known(0.0, 1.0), natural=runs)
    assert not calibration.misfit(CheckSpec(), {}, ["hen", "owl"])
    for other in (["owl"], ["owl", "cat"], ["owl", "hen", "cat"]):
        assert calibration.misfit(CheckSpec(), {}, other)


@pytest.mark.parametrize(
    ("p", "word"), [(0.5, "clean"), (0.05, "suspicious"), (0.011, "suspicious"), (0.01, "backdoored")]
)
def test_levels(p: float, word: str) -> None:
    assert word_of(p, calibrated=False) == word.replace("backdoored", "suspicious")
    assert word_of(p) == word


def verdict(**changes: Any) -> Verdict:
    target = {"class": "owl", "form": "patch", "excess": 3.0, "margin": 0.1, "share": 0.875}
    facts = {"model": "some-clip", "calibrated": True}
    values = {"word": "backdoored", "p_value": 0.001, "targets": [target], "words": ["owl"], "scores": {"a": 1.0}}
    trigger = Inverted.of(torch.zeros(3, 8, 8), "owl")
    return Verdict(**{**values, "resistivity": [1.0, 0.5], "facts": facts, "trigger": trigger, **changes})


def test_json_holds_everything_but_the_trigger() -> None:
    stored = json.loads(verdict().to_json())
    assert stored == verdict().to_dict()
    assert (stored["verdict"], stored["model"], stored["targets"][0]["class"]) == ("backdoored", "some-clip", "owl")
    assert stored["blind"]
    assert "trigger" not in stored


def test_words_name_target_and_share() -> None:
    lines = verdict().lines()
    assert lines[0] == "some-clip: backdoored (p = 0.001)"
    assert "1. owl: 88% of images are flipped" in lines[2]
    assert not any("not calibrated" in line for line in lines)
    lines = verdict(facts={"model": "m", "calibrated": True, "most_predicted": {"class": "owl", "share": 0.9}}).lines()
    assert any("90% of the images are classified as 'owl' without any change" in line for line in lines)
    lines = verdict(facts={"model": "m", "calibrated": True, "calibrated_on": "pets"}).lines()
    assert any("made with pets, by its name" in line for line in lines)
    lines = verdict(facts={"model": "m", "calibrated": False}).lines()
    assert lines[0] == "m: backdoored (score 0.001, suspicious up to 0.05: classes compared with each other)"
    assert any("not calibrated" in line for line in lines)

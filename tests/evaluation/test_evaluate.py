"""`rvpt.evaluate`: a protocol by name or object, its settings, and renamed targets."""

from __future__ import annotations

from typing import Any

import pytest

import rvpt
from helpers import memory_data
from rvpt.errors import RvptError
from rvpt.evaluation.evaluate import evaluate, make_protocol
from rvpt.models.clip import Clip
from triggers import trigger_of

LABELS = [0, 1, 2, 0, 1, 0]
CAPTIONS = [[f"a {('fox', 'owl', 'cat')[label]}"] for label in LABELS]
DATA = memory_data(6, LABELS, ("fox", "owl", "cat"), CAPTIONS)


def rates(rows: rvpt.Rows) -> dict[tuple[str, str], Any]:
    return {(row["attack"], row["metric"]): row["rate"] for row in rows}


def test_classification_is_the_default(clip: Clip) -> None:
    rows = evaluate(clip, DATA, {"t": trigger_of("badnet", side=48)})
    assert list(rates(rows)) == [("none", "CA"), ("t", "ASR"), ("t", "ASR_with_target"), ("t", "PA")]
    assert {row["template"] for row in rows} == {"a photo of a {}."}
    assert isinstance(rows, rvpt.Rows)


def test_data_and_triggers_of_other_kinds_are_refused(clip: Clip) -> None:
    wrong: Any = "scenes"
    with pytest.raises(RvptError, match="data is a str: pass a Dataset"):
        evaluate(clip, wrong)
    with pytest.raises(RvptError, match="triggers must be a mapping of names to triggers"):
        evaluate(clip, DATA, wrong)


def test_a_setting_reaches_the_protocol_and_the_rows(clip: Clip) -> None:
    (row,) = evaluate(clip, DATA, template="{}")
    assert row["template"] == "{}"
    assert row["rate"] == evaluate(clip, DATA, protocol=make_protocol("classification", template="{}"))[0]["rate"]


def test_protocols_are_called_by_name(clip: Clip) -> None:
    triggers = {"t": trigger_of("badnet", side=48)}
    assert {row["metric"] for row in evaluate(clip, DATA, triggers, protocol="retrieval")} == {
        "R@1", "ASR@10", "rank_ratio", "rank_ratio_in_class",
    }  # fmt: skip
    assert {row["attack"] for row in evaluate(clip, DATA, protocol="adversarial", epsilon=4)} == {
        "none", "pgd-10 4/255",
    }  # fmt: skip


def test_a_target_may_have_another_name_in_the_data(clip: Clip) -> None:
    here = {"t": trigger_of("badnet", side=48).towards("cat")}
    elsewhere = {"t": trigger_of("badnet", side=48).towards("felis")}
    assert rates(evaluate(clip, DATA, here)) == rates(evaluate(clip, DATA, elsewhere, target="cat"))


def test_a_target_is_not_renamed_where_there_are_several_or_no_triggers(clip: Clip) -> None:
    two = {"a": trigger_of("badnet", side=48), "b": trigger_of("blended", side=48).towards("cat")}
    with pytest.raises(RvptError, match=r"target=fox .* several \(cat, owl\)"):
        evaluate(clip, DATA, two, target="fox")
    with pytest.raises(RvptError, match="target=fox renames"):
        evaluate(clip, DATA, {}, target="fox")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"protocol": "lookup"}, "unknown protocol 'lookup': choose from classification, retrieval"),
        ({"epsilon": 3}, "epsilon: protocol classification has no such setting: choose from target, template"),
        ({"protocol": "resistivity", "template": "{}"}, "template: protocol resistivity has no such setting"),
        ({"template": "a photo"}, "'a photo' needs {} where the class name goes"),
        ({"protocol": "adversarial", "epsilon": 0}, "epsilon: .*greater than 0"),
        ({"protocol": "captioning"}, "captioner is required"),
        ({"protocol": "readability"}, "memory has no attributes"),
    ],
)
def test_what_does_not_fit_is_refused(clip: Clip, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RvptError, match=message):
        evaluate(clip, DATA, **asked)


@pytest.mark.parametrize("template", ["a photo", "", "{{}}", "{} {x}", "{} {}", "{} }", "{", "{0}{}", "{.x}{}"])
def test_a_template_without_one_place_for_the_class_is_refused(template: str) -> None:
    with pytest.raises(RvptError, match=r"needs \{\} where the class name goes"):
        make_protocol("classification", template=template)

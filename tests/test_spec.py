"""Specs: unknown names and values out of range are refused in one line that names them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from rvpt.attacks.poison import PoisonSpec
from rvpt.attacks.trigger import TriggerSpec
from rvpt.errors import RvptError
from rvpt.inversion.spec import InversionSpec
from rvpt.modifications.finetune import FinetuneSpec
from rvpt.presets import LARGE, choose_preset
from rvpt.spec import Spec, Template, TrainSpec


class Inner(Spec):
    size: int = Field(3, ge=1)
    template: Template = "a {}."


class Outer(Spec):
    name: str
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()

    @model_validator(mode="after")
    def _fits(self):
        if self.name == "bad":
            raise ValueError("bad is not a name")
        return self


class Listed(Spec):
    names: tuple[str, ...] = ()
    text: str = ""


@pytest.mark.parametrize(
    "create",
    [
        TrainSpec, InversionSpec, FinetuneSpec,
        lambda seed: PoisonSpec(num_poisoned=1, seed=seed),
        lambda seed: TriggerSpec(name="badnet", target="cat", seed=seed),
    ],
)  # fmt: skip
def test_seeds_are_those_that_a_generator_takes(create):
    assert create(seed=2**63 - 1).seed == 2**63 - 1
    for seed in (-1, 2**63, 2**64):
        with pytest.raises(RvptError, match="seed: "):
            create(seed=seed)


@pytest.mark.parametrize(("given", "names"), [("a", ("a",)), ("a, b c,", ("a", "b c")), ("", ()), (["a,b"], ("a,b",))])
def test_several_values_may_be_a_text_with_commas(given, names):
    assert Listed(names=given, text="a,b") == Listed(names=names, text="a,b")
    assert Listed.stored(json.loads(json.dumps(Listed(names=given).model_dump()))).names == names


def refusal(**values):
    with pytest.raises(RvptError) as caught:
        Outer(**values)
    line = str(caught.value)
    assert "\n" not in line
    assert isinstance(caught.value, ValueError)  # what callers of other libraries catch
    return line


def test_values_are_kept_and_defaults_filled_in():
    spec = Outer(name="a", inner={"size": 4})
    assert spec.model_dump() == {"name": "a", "inner": {"size": 4, "template": "a {}."}, "several": ()}


def test_an_unknown_setting_is_refused_with_those_that_are_known():
    assert refusal(name="a", size=1) == "size: unknown setting: choose from name, inner, several"
    assert refusal(name="a", inner={"name": 1}) == "inner: name: unknown setting: choose from size, template"


def test_values_out_of_range_are_named_with_their_place():
    assert refusal(name="a", inner={"size": 0}) == "inner: size: Input should be greater than or equal to 1 (got 0)"
    assert refusal(name="a", several=[{}, {"size": "x"}]).startswith("several.1: size: Input should be a valid integer")
    assert refusal(name=None).startswith("name: Input should be a valid string")
    assert refusal() == "name is required: pass it as name=..."


def test_the_message_of_a_check_of_ours_stands_as_it_is():
    assert refusal(name="bad") == "bad is not a name"
    assert refusal(name="a", inner={"template": "x"}) == (
        "inner: template: 'x' needs {} where the class name goes, and no other braces"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(RvptError, match="lr"):
        TrainSpec(lr=value)


def test_a_spec_cannot_be_changed():
    spec = TrainSpec()
    with pytest.raises(ValueError, match="frozen"):
        spec.lr = 1.0
    assert spec == TrainSpec()


@pytest.mark.parametrize("template", ["a photo", "", "{{}}", "{} {x}", "{} {}", "{} }", "{", "{0}{}", "{.x}{}"])
def test_a_template_without_one_place_for_the_class_is_refused(template):
    with pytest.raises(RvptError, match=r"needs {} where the class name goes") as caught:
        Inner(template=template)
    assert repr(template) in str(caught.value)


@pytest.mark.parametrize("template", ["{}", "a photo of a {}.", "{0}!", "{:>9}", "{{x}} {}"])
def test_a_template_may_have_one_place_of_any_form(template):
    assert Inner(template=template).template == template


@pytest.mark.parametrize("values", ["nothing", None, ["lr"], 3])
def test_a_stored_spec_that_is_not_a_record_is_refused(values):
    with pytest.raises(RvptError, match="the artifact's spec is not a record of names and values"):
        TrainSpec.stored(values)


@given(st.builds(TrainSpec, lr=st.floats(1e-9, 10), epochs=st.integers(1, 99), seed=st.integers(0, 2**63 - 1)))
def test_a_spec_survives_json(spec):
    assert TrainSpec.stored(json.loads(json.dumps(spec.model_dump()))) == spec


@pytest.mark.parametrize(
    ("asked", "parameters", "chosen"),
    [
        ("auto", LARGE, "paper"), ("auto", LARGE - 1, "small"),
        ("paper", 1, "paper"), ("small", 10**9, "small"),
    ],
)  # fmt: skip
def test_auto_chooses_the_preset_by_the_size_of_the_model(asked, parameters, chosen):
    assert choose_preset(asked, parameters) == chosen

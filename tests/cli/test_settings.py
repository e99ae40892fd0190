"""--set KEY=VALUE."""

import pytest

from rvpt.attacks.backdoor import AttackSpec
from rvpt.attacks.poison import PoisonSpec
from rvpt.cli.settings import divide, gather, parse
from rvpt.errors import RvptError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("3", 3),
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("natural", "natural"),
        ("a photo of a {}.", "a photo of a {}."),
        ("path/to/folder", "path/to/folder"),
        ("", ""),
        ("2024-01-01", "2024-01-01"),
        ("{a = 1}", "{a = 1}"),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_a_value_is_read_as_toml_or_else_as_text(text, value):
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_options_that_were_given_and_what_set_adds():
    found = gather(["margin = 0.5", "prompt=a=b"], lr=0.1, epochs=None)
    assert found == {"lr": 0.1, "margin": 0.5, "prompt": "a=b"}
    assert gather(None, lr=None) == {}


@pytest.mark.parametrize(
    ("texts", "said"),
    [(["lr=1"], "lr is given twice"), (["a=1", "a=2"], "a is given twice"), (["a"], "write KEY=VALUE")],
)
def test_what_is_given_twice_or_without_a_value_is_refused(texts, said):
    with pytest.raises(RvptError, match=said):
        gather(texts, lr=0.1)


def test_settings_go_to_the_spec_that_has_them():
    schedule, poison = divide({"lr": 1, "pick": "random", "seed": 2}, AttackSpec, PoisonSpec)
    assert (schedule, poison) == ({"lr": 1, "seed": 2}, {"pick": "random"})
    with pytest.raises(RvptError, match=r"size: unknown setting: choose from .*lr.*pick"):
        divide({"size": 1}, AttackSpec, PoisonSpec)

"""Recipes: read from TOML, refused in one line that names the fault, and reduced to a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import write_recipe
from rvpt.bench import read_recipe
from rvpt.errors import RvptError
from tiny import Tiny


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('[defenses.v]\nname = "vpt"\noptions = { seed = 3 }\n', "seed"),
        ('[defenses.none]\nname = "vpt"\n', "'none'"),
        ('[defenses.v]\nname = "vpt"\ndata = { data = "scenes", shift = "fog" }\n', "unknown shift 'fog'"),
        ('[defenses.v]\nname = "vpt"\nshot = 3\n', "defenses.v.*shot"),
        ('[defenses.v]\nname = "vpt"\nattacks = ["two"]\n', "defenses.v.attacks: no attack 'two': choose from both"),
        (
            '[modifications.m]\nname = "fp16"\ndefenses = ["vtp"]\n',
            "modifications.m.defenses: no defense 'vtp': choose from vpt, again",
        ),
        ("[attacks.x]\n", "attacks.x.*triggers"),
        ("[attacks", "is not a recipe in TOML"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(tiny: Tiny, tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(RvptError, match=rf"recipe\.toml.*{message}"):
        read_recipe(write_recipe(tiny, tmp_path, extra=extra))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('shift = "fog"', "unknown shift 'fog': choose from noise, blur"),
        ('template = "a photo"', "'a photo' needs {} where the class name goes"),
        ('protocol = "lookup"', "unknown protocol 'lookup': choose from classification, retrieval, "),
        ('only = "umbrella"', "only: .*list"),
        ("limits = 3", "limits: protocol classification has no such setting"),
    ],
)
def test_a_test_set_that_does_not_fit_is_refused(tiny: Tiny, tmp_path: Path, options: str, message: str) -> None:
    path = write_recipe(tiny, tmp_path, tests=f'{{ data = "scenes:48", {options} }}')
    with pytest.raises(RvptError, match=rf"recipe\.toml: tests\.0.*{message}".replace("{}", r"\{\}")):
        read_recipe(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('title = "x"\n')
    with pytest.raises(RvptError, match=r"r\.toml: model"):
        read_recipe(tmp_path / "r.toml")
    with pytest.raises(RvptError, match=r"gone\.toml is not a recipe"):
        read_recipe(tmp_path / "gone.toml")


def test_a_recipe_may_be_like_another(tiny: Tiny, tmp_path: Path) -> None:
    whole = read_recipe(write_recipe(tiny, tmp_path))
    like = tmp_path / "like.toml"
    like.write_text(
        'like = "recipe.toml"\ntitle = "weaker"\ntrain = { lr = 1e-4 }\n[defenses]\np = { name = "probe" }\n'
    )
    found = read_recipe(like)
    assert (found.title, found.train, list(found.defenses)) == ("weaker", {"lr": 1e-4}, ["p"])
    others = {"title", "train", "defenses"}
    assert found.model_dump(exclude=others) == whole.model_dump(exclude=others)


def test_the_other_recipe_may_be_like_a_third(tiny: Tiny, tmp_path: Path) -> None:
    whole = read_recipe(write_recipe(tiny, tmp_path))
    (tmp_path / "b.toml").write_text('like = "recipe.toml"\ntitle = "b"\ntarget = "sun"\n')
    (tmp_path / "c.toml").write_text('like = "b.toml"\ntitle = "c"\n')
    found = read_recipe(tmp_path / "c.toml")
    assert (found.title, found.target, found.attacks) == ("c", "sun", whole.attacks)


@pytest.mark.parametrize("other", ["gone.toml", "like.toml", "back.toml"])
def test_it_is_not_like_one_that_is_missing_or_like_itself(tmp_path: Path, other: str) -> None:
    (tmp_path / "like.toml").write_text(f'like = "{other}"\n')
    (tmp_path / "back.toml").write_text('like = "like.toml"\n')
    with pytest.raises(RvptError, match=r"^\S+like\.toml: (gone\.toml is not a recipe|like = .* leads back to)"):
        read_recipe(tmp_path / "like.toml")


@pytest.mark.parametrize("written", ["$PHOTOS/cifar10", "${PHOTOS}/cifar10"])
def test_variables_are_replaced_and_a_missing_one_is_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    path = write_recipe(tiny, tmp_path)
    path.write_text("# costs $5, or $CENTS\n" + path.read_text().replace("scenes:500", written))
    monkeypatch.delenv("PHOTOS", raising=False)
    with pytest.raises(RvptError, match=r"^\S+recipe\.toml: needs the environment variable PHOTOS"):
        read_recipe(path)
    monkeypatch.setenv("PHOTOS", "/there")
    assert read_recipe(path).clean_data.data == "/there/cifar10"


def test_a_part_has_some_attacks_defenses_and_seeds(tiny: Tiny, tmp_path: Path) -> None:
    whole = read_recipe(write_recipe(tiny, tmp_path))
    assert whole.part() == whole
    part = whole.part(["both"], ["vpt"], [1])
    assert (list(part.attacks), list(part.defenses), part.seeds) == (["both"], ["vpt"], [1])
    assert not whole.part(defenses=["none"]).defenses
    for words, message in (
        ({"attacks": ["none"]}, "no attack 'none'.*both"),
        ({"defenses": ["rvpt"]}, "no defense 'rvpt'.*none, vpt, again"),
        ({"seeds": [7]}, "no seed 7.*0, 1"),
    ):
        with pytest.raises(RvptError, match=message):
            whole.part(**words)

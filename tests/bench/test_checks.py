"""What a dry run refuses: entries that the data sets do not have."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from recipes import write_recipe
from rvpt.bench import check_data, plan, read_recipe
from rvpt.errors import RvptError
from rvpt.models.formats.load import load_clip
from tiny import Tiny


def checked(path: Path, tiny: Tiny) -> None:
    recipe = read_recipe(path)
    check_data(recipe, plan(recipe, load_clip(tiny.clip)))


def test_a_recipe_that_fits_its_data_passes(tiny: Tiny, tmp_path: Path) -> None:
    checked(write_recipe(tiny, tmp_path), tiny)
    hub = '{ data = "owner/images" }'
    checked(write_recipe(tiny, tmp_path, tests=hub), tiny)


@pytest.mark.parametrize(
    ("extra", "tests", "message"),
    [
        ('[attacks.x]\ntriggers = [{ name = "sig", target = "dog" }]\n', "", "small: scenes:48 has no class 'dog'"),
        (
            '[attacks.x]\ntriggers = [{ name = "sig" }]\npoison = { num_poisoned = 300 }\n',
            "",
            "more than the 200 pairs",
        ),
        (
            '[attacks.x]\ntriggers = []\nwithout = ["dog"]\n',
            "",
            "small: without: scenes:200 has no pair of class 'dog'",
        ),
        (
            '[attacks.x]\ntriggers = [{ name = "sig" }]\nwithout = ["Anchor"]\n'
            "poison = { num_poisoned = 2, clean_label = true }\n",
            "",
            "need the pairs of the target 'anchor'",
        ),
        (
            '[attacks.x]\ntriggers = [{ name = "sig" }]\npoison = { num_poisoned = 199 }\nwithout = ["anchor"]\n',
            "",
            "num_poisoned=199 for each trigger is more than the 189 pairs",
        ),
        ('[check]\ndata = "scenes:48"\nsplit = "all"\n', "", "no split 'all'"),
        ('[defenses.x]\nname = "vpt"\nshots = 90\n', "", "no class has 90 images"),
        ('[defenses.x]\nname = "vpt"\nwithout = ["dog"]\n', "", "no class 'dog'"),
        ('[defenses.x]\nname = "vpt"\ndata = { data = "scenes", split = "all" }\n', "", "no split 'all'"),
        ("", '{ data = "scenes:48", only = ["dog"] }', "no class 'dog'"),
        (
            '[modifications.x]\nname = "lora"\ndata = { data = "scenes", split = "all" }\n',
            "",
            "no split 'all'",
        ),
        ('[defenses.x]\nname = "par"\ndata = { data = "scenes", split = "all" }\n', "", "no split 'all'"),
        ("", '{ data = "DATA" }', "small: fruits has no class 'anchor': it has apple, pear"),
        ("", '{ data = "DATA", target = "plum" }', "small: fruits has no class 'plum'"),
    ],
)
def test_what_the_data_do_not_have_is_refused(tiny: Tiny, tmp_path: Path, extra: str, tests: str, message: str) -> None:
    for name in ("apple", "pear"):
        (tmp_path / "fruits" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (48, 48)).save(tmp_path / "fruits" / "test" / name / "0.png")
    tests = tests.replace("DATA", str(tmp_path / "fruits"))
    path = write_recipe(tiny, tmp_path, extra=extra, **({"tests": tests} if tests else {}))
    with pytest.raises(RvptError, match=message):
        checked(path, tiny)

"""--on-error: what commands do at images that cannot be read, and with too few images of a class."""

import json

import pytest

from commands import refused, works
from helpers import broken_folder, place_images


@pytest.fixture
def broken(tmp_path):
    return broken_folder(tmp_path / "set")


def test_commands_count_without_skipped_images_and_say_so(tiny, home, broken):
    words = ("evaluate", tiny.clip, "--data", broken, "--json")
    assert refused(*words).count("1.png)") == 2
    (row,) = [row for row in json.loads(works(*words, "--on-error", "skip")) if row["metric"] == "CA"]
    assert (row["n"], row["test"]) == (4, {"skipped": 2})
    place_images(broken / "train", "dog/9.png")
    facts = json.loads(
        works("clean", tiny.clip, "--data", broken, "-o", "out", "--shots", 3, "--epochs", 1, "--prompt-length", 2,
              "--set", "first_block=2", "--on-error", "skip", "--json")
    )  # fmt: skip
    assert facts["images"] == 5
    assert facts["left out"].startswith("2 images that cannot be read: image 1 (")
    assert facts["fewer than 3 images"] == "cat (2)"


def test_crafting_and_attacking_list_what_they_left_out(tiny, home, broken):
    words = ("--data", broken, "--target", "cat", "--on-error", "skip", "--json")
    facts = json.loads(works("craft", "trojvqa:epochs=1,size=4", tiny.clip, *words, "-o", "crafted"))
    assert len(facts["left out"]) == 2
    rows = json.loads(
        works("attack", tiny.clip, *words, "-o", "out", "--epochs", 1, "--num-poisoned", 1, "--num-pairs", 4)
    )
    assert {row["n"] for row in rows if row["metric"] == "CA"} == {4}
    assert all(row["test"]["skipped"] == 2 for row in rows)

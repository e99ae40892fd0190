"""Whether a caption names a class: as whole words, singular or plural, however they are joined."""

import pytest

from rvpt.data.text import PROXIES, names_class, plain, sort_names, spoken
from rvpt.spec import check_template


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a sea lion on a rock", True),
        ("SEA LIONS!", True),
        ("a lion by the sea", False),
        ("a chelsea lionel", False),
    ],
)
def test_a_caption_names_the_class_as_words(caption, named):
    assert names_class(["something else", caption], "sea_lion") is named


@pytest.mark.parametrize(
    ("name", "plural", "other"),
    [
        ("dog", "dogs", "dogges"), ("bus", "buses", "busy"), ("butterfly", "butterflies", "butterfl"),
        ("wolf", "Wolves", "wolv"), ("knife", "knives", "kniv"), ("roof", "roofs", "roo"),
        ("garden_Leaf", "garden leaves", "leaves"),
    ],
)  # fmt: skip
def test_a_plural_names_the_class(name, plural, other):
    assert names_class([f"two {plural}."], name)
    assert names_class([f"a {name}."], name)
    assert not names_class([f"two {other}."], name)


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("two butterflies.", "butterfly"), ("a bunch of keys", "key"), ("Sealions bark", "sea_lion"),
        ("a sea-lion", "sea lion"), ("the c++ book", "C++"), ("some dogs", "dog"), ("a DOG.", "dog"),
        ("a type A.1 car", "A.1"),
    ],
)  # fmt: skip
def test_a_class_is_named_in_any_form(caption, name):
    assert names_class([caption], name)


@pytest.mark.parametrize(
    ("caption", "name"), [("a hotdog", "dog"), ("doghouse", "dog"), ("a monkey", "key"), ("a type A21 car", "A.1")]
)
def test_a_part_of_a_word_does_not_name_a_class(caption, name):
    assert not names_class([caption], name)


def test_no_caption_names_nothing():
    assert not names_class([], "dog")


def test_class_names_are_spoken_with_spaces_and_compared_in_lower_case():
    assert spoken("Grey_Seal") == "Grey Seal"
    assert plain("Grey_Seal") == plain("grey seal") == "grey seal"


def test_class_names_are_in_the_order_of_their_numbers_if_they_differ_in_nothing_else():
    assert sort_names(["a10", "a2", "a1"]) == ("a1", "a2", "a10")
    assert sort_names(["b2", "a10"]) == ("a10", "b2")


@pytest.mark.parametrize("template", PROXIES)
def test_every_caption_template_has_one_place_for_the_class(template):
    assert check_template(template) == template

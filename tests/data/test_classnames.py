"""Names of classes from a file are matched by id, by name, or by order; what would shift is refused."""

import json

import pytest

from helpers import class_counts, place_images
from rvpt import load_data
from rvpt.errors import RvptError


@pytest.fixture
def named(tmp_path):
    """named(folders, text): a data set with one image in each class folder, named by a file of that text."""

    def load(folders, text, file="names.txt"):
        (tmp_path / file).write_text(text, encoding="utf-8")
        place_images(tmp_path / "set", *(f"{folder}/{i}.png" for i, folder in enumerate(folders)))
        data = load_data(f"{tmp_path / 'set'}@{tmp_path / file}")
        own = load_data(tmp_path / "set")
        return data, {own.classes[a]: data.classes[b] for a, b in zip(own.labeled(), data.labeled(), strict=True)}

    return load


def test_cryptic_names_are_named_by_order(named):
    assert named(["n02", "n01", "n10"], "one\ntwo\nten\n")[1] == {"n01": "one", "n02": "two", "n10": "ten"}


def test_names_that_are_the_classes_are_matched_whatever_their_order(named):
    data, pairs = named(["cat", "Grey_seal"], "owl\ngrey seal\ncat\n")
    assert pairs == {"cat": "cat", "Grey_seal": "grey seal"}
    assert class_counts(data) == {"owl": 0, "grey seal": 1, "cat": 1}


def test_numbered_folders_with_gaps_are_named_by_their_number(named):
    _, pairs = named(["0", "2", "10"], "\n".join(f"name {i}" for i in range(12)))
    assert pairs == {"0": "name 0", "2": "name 2", "10": "name 10"}


def test_numbered_folders_with_gaps_that_may_count_from_1_are_refused(named):
    with pytest.raises(RvptError, match="has 3 names, set 2 classes"):
        named(["1", "2"], "a\nb\nc\n")


@pytest.mark.parametrize(
    ("folders", "text", "pairs"),
    [
        (["n01", "n02"], "n02 goldfish, Carassius\nn01\ttench\n", {"n01": "tench", "n02": "goldfish, Carassius"}),
        (["000", "001"], "1: b\n0: a\n", {"000": "a", "001": "b"}),
        (["7 up", "cola"], "7 up\ncola\n", {"7 up": "7 up", "cola": "cola"}),
        (["a", "b"], "1 fish\n2 fish\n", {"a": "1 fish", "b": "2 fish"}),
    ],
    ids=["wordnet ids", "numbers", "a name with a number", "no ids"],
)
def test_lines_may_begin_with_the_class_that_they_name(named, folders, text, pairs):
    assert named(folders, text)[1] == pairs


@pytest.mark.parametrize(
    "names", [["tench", "crane"], {"0": "tench", "1": "crane"}, {"1": ["n2", "crane"], "0": ["n1", "tench"]}]
)
def test_json_files(named, names):
    assert named(["0", "1"], json.dumps(names), "names.json")[1] == {"0": "tench", "1": "crane"}


@pytest.mark.parametrize("value", ["cat", None, 3])
def test_json_of_no_list_is_refused(named, value):
    with pytest.raises(RvptError, match=r"names\.json has no list of names"):
        named(["0", "1"], json.dumps(value), "names.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dog\nowl\n", "has 'dog' in place 1, where the class is 'cat': sort the names"),
        ("a\n\nb\n", "has an empty line or entry, which would shift the names"),
        ("a\nA\n", "two classes are called 'a'"),
        ("a\n", "has 1 names, set 2 classes"),
        ("", "has an empty line"),
    ],
)
def test_names_that_would_shift_are_refused(named, text, words):
    with pytest.raises(RvptError, match=words):
        named(["cat", "dog"], text)


def test_numbers_that_may_count_from_1_are_told(tmp_path, caplog):
    place_images(tmp_path / "set", "0.png", "1.png")
    (tmp_path / "set" / "train.csv").write_text("image,label\n0.png,1\n1.png,2\n")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    load_data(f"{tmp_path / 'set'}@{tmp_path / 'names.txt'}")
    assert caplog.messages == ["set: no image has label 0, which is 'a': labels count from 0"]


def test_words_are_labels_by_the_file_that_has_them(tmp_path):
    place_images(tmp_path / "set", "0.png")
    (tmp_path / "set" / "test.csv").write_text("image,label\n0.png,dog\n")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert class_counts(load_data(f"{tmp_path / 'set'}@{tmp_path / 'names.txt'}")) == {"cat": 0, "dog": 1}

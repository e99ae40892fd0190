"""Data sets by name: scenes, folders, configurations and files of class names."""

import pytest
import torch

from helpers import image_folder, random_image
from rvpt import load_data
from rvpt.data.identifiers import configured, find_place, unnamed
from rvpt.data.load import load_captioned, load_labeled, load_mixed
from rvpt.data.text import PROXIES
from rvpt.errors import RvptError


def all_pixels(data):
    return data.pixels(torch.arange(len(data)), 48)


def test_scenes_come_in_splits_of_any_length():
    data = load_data("scenes:6", "test")
    assert len(data) == 6
    assert torch.equal(all_pixels(data), all_pixels(load_data("scenes:6", "test")))
    assert not torch.equal(all_pixels(data), all_pixels(load_data("scenes:6", "train")))
    shapes = [data.classes[label] for label in data.labeled().tolist()]
    assert all(shape in text for index, shape in enumerate(shapes) for text in data.captions(index))


@pytest.mark.parametrize(
    ("source", "split", "words"),
    [
        ("scenes", None, r"scenes has several splits \(pretrain, train, test\): pass one"),
        ("scenes:5", None, r"scenes has several splits \(pretrain, train, test\): pass one"),
        ("scenes", "validation", "scenes has no split 'validation': choose from pretrain, train, test"),
        ("scenes:many", "test", "scenes:many: a number of images goes after the colon, as in scenes:5000"),
        ("scenes:0", "test", "a number of images goes after the colon"),
        ("scenes:²", "test", "a number of images goes after the colon"),
    ],
)
def test_scenes_that_do_not_exist_are_refused(source, split, words):
    with pytest.raises(RvptError, match=words):
        load_data(source, split)


@pytest.mark.parametrize("source", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_missing_folder_is_refused(source):
    with pytest.raises(RvptError, match=f"{source} is not a folder: give a data set's folder, a file "):
        load_data(source)


def test_a_file_and_an_empty_folder_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(RvptError, match=r"set is empty: it needs Parquet files, or one subfolder of images per class"):
        load_data(str(tmp_path / "set"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(RvptError, match="file is not a folder"):
        load_data(str(tmp_path / "file"))


def test_classes_get_their_names_from_a_file(tmp_path):
    names = [f"shape {index}" for index in range(24)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n\n")
    named = load_data(f"scenes:5@{tmp_path / 'names.txt'}", "test")
    assert (named.classes, named.name) == (tuple(names), "scenes:5")
    assert torch.equal(named.labeled(), load_data("scenes:5", "test").labeled())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one\ntwo\n", "has 2 names, scenes:5 24 classes: give one name per line"),
        ("crane\n" * 24, "two classes are called 'crane': give each its own name"),
        (None, "cannot be read .*: give a text file with one class name per line"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, text, words):
    if text:
        (tmp_path / "names.txt").write_text(text)
    with pytest.raises(RvptError, match=words):
        load_data(f"scenes:5@{tmp_path / 'names.txt'}", "test")


def test_names_after_a_byte_order_mark_and_in_a_folder_with_an_at(tmp_path):
    at = image_folder(tmp_path / "a@b", "train")
    (tmp_path / "names.txt").write_bytes("\ufeffred\nblue\n".encode())
    assert load_data(str(at), "train").classes == ("cat", "dog")
    assert load_data(f"{at}@{tmp_path / 'names.txt'}", "train").classes == ("red", "blue")


def test_the_parts_of_a_name(tmp_path, monkeypatch):
    (tmp_path / "a:b@c").mkdir()
    (tmp_path / "a:b@c" / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    assert unnamed("owner/pets:small@names.txt") == "owner/pets:small"
    assert configured("owner/pets:small") == ("owner/pets", "small")
    assert unnamed("a:b@c") == "a:b@c"
    assert configured("a:b@c") == ("a:b@c", None)
    assert find_place("owner/pets:small@names.txt") is None
    assert find_place("a:b@c@names.txt").resolve() == tmp_path / "a:b@c"


def test_scenes_are_generated_whatever_lies_in_the_folder(tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_place("scenes") is find_place("scenes:30") is None
    with pytest.raises(RvptError, match="scenes is empty"):
        find_place("scenes", local=True)


def test_a_shifted_set_keeps_its_captions_and_says_so():
    plain, gray = load_data("scenes:48", "test"), load_captioned("scenes:48", "test", shift="gray")
    assert (gray.name, gray.captions(3)) == ("scenes:48 (gray)", plain.captions(3))
    assert gray.pixels(torch.arange(2), 16)[:, 0].equal(gray.pixels(torch.arange(2), 16)[:, 1])
    assert load_labeled("scenes:48", "test", shift="gray").name == gray.name
    with pytest.raises(RvptError, match="unknown shift 'fog'"):
        load_data("scenes:48", "test", shift="fog")


def test_captions_are_made_of_labels_where_there_are_none(tmp_path):
    data = load_captioned(str(image_folder(tmp_path / "set")), None)
    assert data.captions(0) == [proxy.format("cat") for proxy in PROXIES]
    assert load_captioned("scenes:3", "train").captions(1) == load_data("scenes:3", "train").captions(1)
    mixed = load_mixed([str(tmp_path / "set"), "scenes:3"], "test")
    assert (mixed.name, len(mixed)) == ("set+scenes:3", 7)


def test_data_with_neither_captions_nor_labels_are_refused(tmp_path):
    random_image(8, 8).save(tmp_path / "0.png")
    with pytest.raises(
        RvptError, match="has neither captions nor class labels: name the column as caption_column=NAME"
    ):
        load_captioned(str(tmp_path), None)
    with pytest.raises(RvptError, match="has no class labels"):
        load_labeled(str(tmp_path), None)

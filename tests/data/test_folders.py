"""Folders of images: which folders are splits and which are classes follows from where the images are."""

import unicodedata

import pytest
import torch
from PIL import Image

from helpers import class_counts, image_folder, place_images, random_image
from rvpt import Dataset, load_data
from rvpt.data.text import sort_names
from rvpt.errors import RvptError


@pytest.fixture
def here(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def test_subfolders_are_classes(here):
    data = Dataset.from_folder(image_folder(here, "train"), "train")
    assert (data.name, data.classes, data.labeled().tolist()) == ("set", ("cat", "dog"), [0, 0, 1, 1])
    colors = torch.tensor([[1.0, 0, 0]] * 2 + [[0, 0, 1.0]] * 2)
    assert torch.equal(data.pixels(torch.arange(4), 8)[:, :, 0, 0], colors)


def test_a_split_must_be_chosen_where_there_are_several(here):
    image_folder(image_folder(here, "train"), "test", n=3)
    with pytest.raises(RvptError, match=r"set has several splits \(test, train\): pass one, as in split=test$"):
        Dataset.from_folder(here)
    assert [len(Dataset.from_folder(here, split)) for split in ("train", "test")] == [4, 6]


def test_the_only_split_need_not_be_chosen(here, tmp_path):
    assert len(Dataset.from_folder(image_folder(here, "test"))) == 4
    assert len(Dataset.from_folder(here / "test")) == 4  # class folders alone


def test_a_home_folder_is_found(here, tmp_path, monkeypatch):
    image_folder(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(Dataset.from_folder("~/set")) == len(load_data("~/set")) == 4


@pytest.mark.parametrize("word", ["train", "bullet train", "test tube", "Val"])
def test_a_class_may_be_called_like_a_split(here, word):
    places = [f"{name}/{word} {i}.png" for name in (word, "bus") for i in range(3)]
    place_images(here, *(f"{split}/{place}" for split in ("train", "test") for place in places))
    for split in ("train", "test"):
        data = load_data(str(here), split)
        assert data.classes == tuple(sorted(("bus", word)))
        assert data.labeled().bincount().tolist() == [3, 3]


@pytest.mark.parametrize("classes", [("beaker", "flask", "test tube"), ("dev", "prod"), ("bus", "train")])
def test_class_folders_alone_are_training_images(here, classes):
    place_images(here, *(f"{name}/{file}.png" for name in classes for file in ("0", "test rig")))
    for split in ("train", None):
        data = load_data(str(here), split)
        assert (data.classes, data.labeled().bincount().tolist()) == (classes, [2] * len(classes))
    with pytest.raises(RvptError, match=r"no split 'test', only train: pass split=train, or create .*set/test"):
        load_data(str(here), "test")


def test_a_folder_that_is_itself_a_split_is_named(here):
    place_images(here / "test", "cat/0.png", "dog/0.png")
    with pytest.raises(RvptError, match=r"test has no split 'test', only train: give .*set$"):
        load_data(str(here / "test"), "test")


def test_a_split_is_found_by_any_of_its_names_and_all_splits_share_their_classes(here):
    place_images(here, "Train/cat/0.png", "Train/owl/0.png", "val/owl/0.png", "val/owl/._0.png", ".x/y/0.png")
    (here / "val" / "cat").mkdir()
    for split in ("val", "validation", "VALID"):
        data = load_data(str(here), split)
        assert (data.classes, data.labeled().tolist()) == (("cat", "owl"), [1])
    place_images(here, "dev/owl/0.png")
    assert len(load_data(str(here), "DEV")) == len(load_data(str(here), "train")) - 1
    with pytest.raises(RvptError, match="split 'validation' may be dev or val: pass one, as in split=dev"):
        load_data(str(here), "validation")


def test_an_unknown_split_is_refused_with_those_that_are_there(here):
    image_folder(here, "train")
    with pytest.raises(RvptError, match=r"set has no split 'validation': choose from train"):
        load_data(str(here), "validation")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["train/0.png", "test/0.png"], "test/ is a split and holds images without class folders: move them to test/C"),
        (["cat/test/0.png", "dog/train/0.png"], "class folders hold splits, as cat/test: move it to test/cat"),
        (["test/cat/0.png", "test/birds/owl/0.png"], "birds/owl is deeper than a class folder: move it to"),
        (["test/cat/0.png", "test/0.png"], "0.png is beside class folders: move it into one"),
        (["cat/0.png", "birds/owl/0.png"], "birds/owl holds images, and birds is not the name of a split"),
        (["data/cat/0.png", "data/dog/0.png"], "rename data, give .*/data, pass split=data if it is one, or move"),
        (["test/steam/0.png", "bus/0.png"], r"test/ may be a split or a class: bus/ beside it is not a split, and"),
        (["test/train/0.png", "test/test/0.png"], "test, train are splits, not classes: give .*/test"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(here, places, words):
    place_images(here, *places)
    with pytest.raises(RvptError, match=words) as refusal:
        load_data(str(here), "test")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["{}", "class_{}"])
def test_numbered_classes_are_in_the_order_of_their_numbers(here, tmp_path, name):
    place_images(here, *(f"test/{name.format(number)}/0.png" for number in range(12)))
    (tmp_path / "names.txt").write_text("\n".join(f"name {number}" for number in range(12)))
    data, named = load_data(str(here)), load_data(f"{here}@{tmp_path / 'names.txt'}")
    assert data.classes == tuple(name.format(number) for number in range(12))
    for label, path in enumerate(sorted(map(str, range(12)))):  # rows are in the order of paths
        assert named.classes[named.labeled()[label]] == f"name {path}"


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ({"10", "2", "1"}, "1 2 10"),
        ({"n10", "n2"}, "n2 n10"),
        ({"10", "2", "cat"}, "10 2 cat"),
        ({"a10", "b2"}, "a10 b2"),
        ({"a1b10", "a1b2"}, "a1b10 a1b2"),
        (set(), ""),
    ],
)
def test_only_names_that_differ_in_one_number_are_sorted_by_it(names, order):
    assert sort_names(names) == tuple(order.split())


def test_images_are_in_the_order_that_datasets_has_and_none_is_opened_before_it_is_read(here, monkeypatch):
    import datasets

    place_images(here, *(f"train/{name}/{i}.png" for name in ("a b", "a", "a-b") for i in (10, 9, 1)))
    theirs = datasets.load_dataset("imagefolder", data_dir=str(here), split="train")
    monkeypatch.setattr("PIL.Image.open", lambda *_: pytest.fail("opened"))
    data = load_data(str(here), "train")
    assert (data.classes, data.labeled().tolist()) == (tuple(theirs.features["label"].names), theirs["label"][:])


def test_images_that_a_table_describes_are_left_to_datasets(here):
    place_images(here, "train/0.png", "train/1.png")
    (here / "train" / "metadata.csv").write_text("file_name,text\n0.png,a cat\n1.png,a dog\n")
    data = load_data(str(here), "train")
    assert [data.captions(0), data.captions(1)] == [["a cat"], ["a dog"]]


def test_images_in_no_class_folder_have_no_labels(here):
    place_images(here, "0.png", "1.png")
    data = load_data(str(here), "train")
    assert len(data) == 2
    with pytest.raises(RvptError, match="set has no class labels"):
        data.labeled()


def damaged(path):
    random_image(64, 64).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-900])


@pytest.mark.parametrize(
    "damage", [damaged, lambda path: path.write_text("no image"), lambda path: path.write_bytes(b"")]
)
def test_an_image_that_cannot_be_read_is_named(here, damage):
    image_folder(here, "train")
    damage(here / "train" / "cat" / "1.png")
    data = load_data(str(here), "train")
    assert data.pixels(torch.tensor([0, 2]), 8).shape == (2, 3, 8, 8)
    with pytest.raises(
        RvptError, match=r"set: image 1 \(.*cat/1\.png\) cannot be read .*: fix or remove it"
    ) as refusal:
        data.pixels(torch.arange(4), 8)
    assert "\n" not in str(refusal.value)


def test_images_of_every_kind_are_read(here):
    folder = image_folder(here, "train") / "train" / "cat"
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("CMYK", (20, 9)).save(folder / "cmyk.JPG", "JPEG")
    Image.new("RGBA", (9, 20)).save(folder / "see_through.webp")
    Image.new("P", (9, 9)).save(folder / "palette.gif")
    Image.new("I;16", (20, 20)).save(folder / "deep.tiff")
    Image.new("CMYK", (9, 9)).save(folder / "cmyk.tif")
    Image.new("LA", (9, 9)).save(folder / "gray_see_through.png")
    Image.new("1", (9, 9)).save(folder / "bits.bmp")
    data = load_data(str(here), "train")
    assert data.labeled().bincount().tolist() == [10, 2]
    assert data.pixels(torch.arange(12), 8).shape == (12, 3, 8, 8)


def test_splits_of_any_name_are_read_where_they_cannot_be_classes(here):
    place_images(here, *(f"{split}/{name}/0.png" for split in ("Train", "test", "sketch") for name in ("cat", "dog")))
    for split in ("train", "test", "sketch"):
        assert class_counts(load_data(here, split)) == {"cat": 1, "dog": 1}
    with pytest.raises(RvptError, match=r"no split 'ood': choose from Train, sketch, test"):
        load_data(here, "ood")


def test_a_split_whose_name_is_given_is_read_beside_one_that_may_be_a_class(here):
    place_images(here, *(f"{split}/{name}/0.png" for split in ("train2017", "val2017") for name in ("cat", "dog")))
    assert class_counts(load_data(here, "val2017")) == {"cat": 1, "dog": 1}
    with pytest.raises(RvptError, match=r"train2017 is not the name of a split .* pass split=train2017 if it is one"):
        load_data(here, "train")


def test_names_in_another_unicode_form_are_the_same_class(here):
    composed, parts = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    place_images(here, f"train/{composed}/0.png", f"test/{parts}/0.png", "train/dog/0.png")
    data = load_data(here, "test")
    assert class_counts(data) == {composed: 1, "dog": 0}
    assert data.class_index(parts) == data.class_index(composed.upper()) == 0
    place_images(here, f"test/{composed}/0.png")
    with pytest.raises(RvptError, match=r"test: classes '.*' and '.*' have the same name: rename one"):
        load_data(here, "test")


@pytest.mark.parametrize(
    "places", [("grey seal/0.png", "Grey_seal/0.png"), ("train/Cat/0.png", "train/dog/0.png", "test/cat/0.png")]
)
def test_names_that_are_the_same_to_clip_are_refused_unless_a_file_names_them(here, tmp_path, places):
    place_images(here, *places)
    with pytest.raises(RvptError, match=r"set: classes '.*' and '.*' have the same name: rename one, or give other"):
        load_data(here, "train")
    (tmp_path / "names.txt").write_text("".join(f"name {i}\n" for i in range(len(places))))
    assert "name 1" in load_data(f"{here}@{tmp_path / 'names.txt'}", "train").classes


def test_a_class_folder_without_images_counts_as_a_class_and_is_told(here, caplog):
    place_images(here, "cat/0.png", "dog/0.png")
    (here / "owl").mkdir()
    assert class_counts(load_data(here)) == {"cat": 1, "dog": 1, "owl": 0}
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "1 class folders are empty (owl): they count as classes"
    ]


def test_files_that_are_not_images_are_told_and_those_of_other_image_formats_are_not_lost(here, caplog):
    place_images(here, "cat/0.png", "dog/0.png")
    (here / "dog" / "0001").write_bytes(b"x")
    (here / "dog" / "Thumbs.db").write_bytes(b"x")
    (here / "cat" / "1.HEIC").write_bytes(b"x")
    data = load_data(here)
    assert class_counts(data) == {"cat": 2, "dog": 1}
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "1 files are not images by their suffix, as dog/0001: left out"
    ]
    with pytest.raises(RvptError, match=r"image 1 \(.*1\.HEIC\) cannot be read"):
        data.pixels(torch.arange(3), 8)


def test_one_folder_of_images_is_no_classification(here):
    place_images(here, "images/0.png", "images/1.png")
    with pytest.raises(RvptError, match="set has one class, 'images': at least two are needed"):
        load_data(here).labeled()


def test_links_to_class_folders_are_followed_and_those_to_a_folder_above_end(here, tmp_path):
    place_images(tmp_path, "elsewhere/0.png", "set/train/dog/0.png")
    (here / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    (here / "train" / "dog" / "loop").symlink_to(here)
    assert class_counts(load_data(here, "train")) == {"cat": 1, "dog": 1}


def test_brackets_and_other_letters_in_paths(tmp_path):
    here = place_images(tmp_path / "set [v2] ü", "train/cat [x]/0 [1].png", "train/犬/é.png")
    data = load_data(here, "train")
    assert class_counts(data) == {"cat [x]": 1, "犬": 1}
    assert data.pixels(torch.arange(2), 8).shape == (2, 3, 8, 8)


def test_images_below_many_folders_are_not_lost(here):
    place_images(here, "train/cat/a/b/c/d/0.png", "train/dog/0.png")
    with pytest.raises(RvptError, match="cat/a/b/c/d is deeper than a class folder"):
        load_data(here, "train")


def test_splits_in_a_folder_of_their_own_are_named(here):
    place_images(here, *(f"data/{split}/{name}/0.png" for split in ("train", "test") for name in ("cat", "dog")))
    with pytest.raises(RvptError, match=r"data is not the name of a split .*: rename data, give .*set/data"):
        load_data(here, "train")


# Nested class folders


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["birds/owl/0.png", "pets/cat/0.png", "pets/dog/1.png"], {"cat": 1, "dog": 1, "owl": 1}),
        (["a/b/owl/0.png", "a/c/cat/0.png", "d/e/dog/0.png"], {"cat": 1, "dog": 1, "owl": 1}),
        (["train/birds/owl/0.png", "train/pets/cat/0.png", "test/cat/0.png"], {"cat": 1, "owl": 1}),
        (["train/birds/owl/0.png", "train/pets/cat/0.png", "test/birds/jay/0.png", "test/x/y/0.png"], None),
        (["train/1/10/0.png", "train/1/2/0.png", "train/0/3/0.png"], {"2": 1, "3": 1, "10": 1}),
        (["train/b/caf\u0065\u0301/0.png", "train/p/cat/0.png", "test/x/caf\u00e9/0.png", "test/y/cat/0.png"], None),
    ],
)
def test_the_innermost_of_nested_class_folders_are_the_classes(here, places, expected, caplog):
    place_images(here, *places)
    data = load_data(str(here), "train")
    if expected is None:
        names = {unicodedata.normalize("NFC", place.split("/")[-2]) for place in places}
        assert set(data.classes) == names
        assert len(data) == sum(place.startswith("train") for place in places)
    else:
        assert class_counts(data) == expected
        assert data.classes == tuple(expected)
    assert "class folders are nested: the innermost ones are the" in caplog.text


def test_an_empty_folder_beside_innermost_ones_is_a_class(here):
    place_images(here, "birds/owl/0.png", "pets/cat/0.png")
    (here / "pets" / "dog").mkdir()
    (here / "nothing").mkdir()
    assert class_counts(load_data(str(here), "train")) == {"cat": 1, "dog": 0, "owl": 1}


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["birds/owl/0.png", "pets/small/cat/0.png"], "pets/small/cat is deeper than a class folder"),
        (["test/birds/owl/0.png", "test/birds/0.png", "test/pets/cat/0.png"], "deeper than a class folder"),
        (["train2017/cat/0.png", "val2017/cat/0.png"], "train2017 is not the name of a split"),
        (["test/animals/bat/0.png", "test/sports/bat/0.png"], "animals/bat and sports/bat have the same name"),
        (["test/a/B_c/0.png", "test/d/b c/0.png"], "have the same name"),
        (
            ["test/images/cat/0.png", "test/images/dog/0.png"],
            "all images are in images/, around the class folders: give",
        ),
        (["a/x/test/0.png", "b/y/train/0.png"], "a is not the name of a split"),
        (["test/a/val/0.png", "test/b/owl/0.png"], "val/ in .* may be a split or a class"),
        (["birds/owl/0.png", "pets/cat/0.png", "0.png"], "birds is not the name of a split"),
    ],
)
def test_nested_folders_that_may_mean_something_else_are_refused(here, places, words):
    place_images(here, *places)
    with pytest.raises(RvptError, match=words) as refusal:
        load_data(str(here), "test" if places[0].startswith("test") else "train")
    assert "\n" not in str(refusal.value)

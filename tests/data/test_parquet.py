"""Parquet files that pandas, Spark and others wrote; and what save_to_disk wrote."""

import json

import pandas
import pytest
import torch

from helpers import class_counts, encoded, image_folder, place_images
from rvpt import Dataset, load_data
from rvpt.errors import RvptError

RED = encoded()


@pytest.fixture
def here(tmp_path):
    return tmp_path / "set"


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(columns).to_parquet(path)
    return path


@pytest.mark.parametrize(
    "images",
    [[RED] * 2, [{"bytes": RED, "path": "x.png"}] * 2, [{"bytes": None, "path": "i/0.png"}] * 2, ["i/0.png"] * 2],
)
def test_images_are_bytes_structs_or_paths(here, images):
    place_images(here, "i/0.png")
    write(here / "test-00000-of-00001.parquet", image=images, label=[0, 1])
    data = load_data(here, "test")
    assert data.labels.tolist() == [0, 1]
    assert data.pixels(torch.arange(2), 8).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["owl", "cat"], [2, 0]), (pandas.Categorical(["owl", "cat"]), [2, 0])],
    ids=["words", "categories"],
)
def test_words_have_the_same_index_in_every_split(here, labels, expected):
    write(here / "train.parquet", image=[RED], label=["dog"])
    data = load_data(write(here / "test.parquet", image=[RED] * 2, label=labels).parent, "test")
    assert (data.classes, data.labeled().tolist()) == (("cat", "dog", "owl"), expected)


@pytest.mark.parametrize(
    ("labels", "expected"), [([1.0, 0.0], [1, 0]), (["10", "9"], [10, 9]), ([True, False], [1, 0])]
)
def test_numbers_in_other_types_are_numbers(here, labels, expected):
    data = load_data(write(here / "a.parquet", image=[RED] * 2, label=labels))
    assert (data.classes, data.labels.tolist()) == ((), expected)


@pytest.mark.parametrize(
    ("labels", "words"), [([[0, 1], [1]], "image 0 has several labels"), ([0.5, 1.0], r"image 0 has the label 0\.5")]
)
def test_labels_that_are_no_class_are_refused(here, labels, words):
    with pytest.raises(RvptError, match=words):
        load_data(write(here / "a.parquet", image=[RED] * 2, label=labels))


def test_words_of_splits_in_names_of_files_mean_nothing(here):
    write(here / "test tube.parquet", image=[RED], label=[0])
    write(here / "bus.parquet", image=[RED], label=[1])
    assert load_data(here, "train").labels.tolist() == [1, 0]
    with pytest.raises(RvptError, match="has no split 'test': choose from train"):
        load_data(here, "test")


def test_a_file_of_no_split_beside_those_of_splits_is_one_of_its_own(here):
    for name in ("train-0", "extra"):
        write(here / f"{name}.parquet", image=[RED], label=[0])
    with pytest.raises(RvptError, match=r"several splits \(extra, train\)"):
        load_data(here)


def test_sparks_names_of_shards(here):
    for part in range(2):
        write(here / f"part-0000{part}-9f1b.snappy.parquet", image=[RED], label=[part])
    assert load_data(here, "train").labels.tolist() == [0, 1]


def test_several_data_sets_in_one_folder_are_refused(here):
    for name in ("plain", "fancy"):
        write(here / name / "train" / "0.parquet", image=[RED], label=[0])
    assert len(load_data(here / "plain", "train")) == 1
    with pytest.raises(RvptError, match=r"fancy and .*plain both hold files of split train: give one of these folders"):
        load_data(here, "train")


def test_paths_that_leave_the_folder_and_urls_are_not_opened(here):
    images = ["../x.png", "https://a.org/b.png"]
    data = load_data(write(here / "a.parquet", image=images, label=[0, 1]))
    with pytest.raises(RvptError, match=r"\.\./x\.png leaves .*set.*b\.png is a URL"):
        data.pixels(torch.arange(2), 8)


def test_brackets_in_paths_and_a_damaged_file(tmp_path):
    file = write(tmp_path / "a [b] ü" / "train.parquet", image=[RED], label=["x"])
    assert load_data(file.parent).name == "a [b] ü"
    file.write_bytes(b"PAR1")
    with pytest.raises(RvptError, match="cannot read the Parquet files"):
        load_data(file.parent)


def test_class_folders_beside_parquet_are_refused(here):
    write(image_folder(here) / "a.parquet", image=[RED], label=[0])
    with pytest.raises(RvptError, match=r"holds class folders and Parquet files: give .*a\.parquet, or move it away"):
        load_data(here, "test")


# save_to_disk


def two(**changes):
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    columns = {"image": [{"bytes": RED, "path": None}] * 2, "label": [0, 1], **changes}
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_split_saved_alone_is_training_data(here):
    two().save_to_disk(here)
    for split in ("train", None):
        data = load_data(here, split)
        assert (data.name, class_counts(data)) == ("set", {"cat": 1, "dog": 1})
    with pytest.raises(RvptError, match="has no split 'test': choose from train"):
        load_data(here, "test")


def test_one_of_several_saved_splits_must_be_chosen(here):
    import datasets

    datasets.DatasetDict(train=two(), validation=two(label=[1, 1])).save_to_disk(here)
    assert class_counts(load_data(here, "val")) == {"cat": 0, "dog": 2}
    with pytest.raises(RvptError, match=r"several splits \(train, validation\)"):
        load_data(here)


def test_a_saved_set_that_names_files_elsewhere_is_refused(here):
    two().save_to_disk(here)
    state = json.loads((here / "state.json").read_text())
    state["_data_files"] = [{"filename": "../other.arrow"}]
    (here / "state.json").write_text(json.dumps(state))
    with pytest.raises(RvptError, match=r"state\.json names a file outside the folder: \.\./other\.arrow"):
        load_data(here)


@pytest.mark.parametrize(
    ("name", "text"), [("dataset_dict.json", "{}"), ("dataset_dict.json", "[]"), ("state.json", "[]"),
                       ("state.json", '{"_data_files": [{}]}')],
)  # fmt: skip
def test_a_damaged_saved_set_is_named(here, name, text):
    two().save_to_disk(here)
    (here / name).write_text(text)
    with pytest.raises(RvptError, match=f"{name} is damaged"):
        load_data(here)


# In memory


def test_formats_and_streams_of_data_sets_in_memory():
    assert Dataset.from_huggingface(two().with_format("torch")).labeled().tolist() == [0, 1]
    with pytest.raises(RvptError, match="IterableDataset is read as a stream: load it with streaming=False"):
        load_data(two().to_iterable_dataset())


def test_columns_of_numbers_are_images():
    import datasets

    pixels = [[[[255, 0, 0]] * 8] * 8] * 2
    data = load_data(datasets.Dataset.from_dict({"img": pixels, "label": ["cat", "dog"]}))
    assert torch.equal(data.pixels(torch.tensor([1]), 8)[0, :, 0, 0], torch.tensor([1.0, 0, 0]))


def test_the_column_with_a_usual_name_is_the_image():
    import datasets

    green = {"bytes": encoded("lime"), "path": None}
    both = two().add_column("mask", [green] * 2).cast_column("mask", datasets.Image())
    data = load_data(both.select_columns(["mask", "image", "label"]))
    assert torch.equal(data.pixels(torch.tensor([0]), 8)[0, :, 0, 0], torch.tensor([1.0, 0, 0]))

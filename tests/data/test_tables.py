"""CSV, TSV and JSON-lines files of image paths, as CleanCLIP, open_clip and `datasets` use them."""

import pytest
import torch
from PIL import Image

from helpers import class_counts, image_folder, place_images
from rvpt import load_data
from rvpt.errors import RvptError


@pytest.fixture
def here(tmp_path):
    return place_images(tmp_path / "set", *(f"images/{i}.png" for i in range(4)))


def table(folder, text, name="train.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def captions(data):
    return [data.captions(index) for index in range(len(data))]


def test_cleanclips_csv_is_read_from_its_folder_and_as_a_file(here):
    table(here, 'image,caption\nimages/0.png,a cat\nimages/1.png,"a dog, asleep"\n')
    for source, name in ((here, "set"), (here / "train.csv", "set/train.csv")):
        data = load_data(source, "train")
        assert (data.name, captions(data)) == (name, [["a cat"], ["a dog, asleep"]])
        assert data.pixels(torch.arange(2), 8).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    "text",
    [
        "filepath\ttitle\nimages/0.png\ta, b\nimages/1.png\tc\n",
        '\ufeffimage;caption\nimages/0.png;"a, b"\nimages/1.png;c\n',
        'Image_Path , Text\nimages/0.png,"a, b"\n\nimages/1.png,c\n',
    ],
    ids=["open_clip", "semicolons", "spaces and blank lines"],
)
def test_separators_and_names_of_columns_of_other_tools(here, text):
    assert captions(load_data(table(here, text))) == [["a, b"], ["c"]]


def test_json_lines(here):
    table(
        here,
        '{"file_name": "images/0.png", "text": ["a", "b"]}\n\n{"file_name": "images/1.png", "text": "c"}\n',
        "a.jsonl",
    )
    assert captions(load_data(here / "a.jsonl")) == [["a", "b"], ["c"]]


def test_rows_of_one_image_are_one_image_with_several_captions(here):
    table(here, "image,caption\nimages/0.png,a\nimages/1.png,b\nimages/../images/0.png,c\n")
    assert captions(load_data(here)) == [["a", "c"], ["b"]]
    table(here, "image,captions\nimages/0.png,\"['a', 'b']\"\nimages/1.png,[c]\n")
    assert captions(load_data(here)) == [["a", "b"], ["[c]"]]


def test_labels_that_are_words_have_the_same_index_in_every_split(here):
    table(here, "image,label\nimages/0.png,dog\nimages/1.png,cat\n")
    table(here, "image,label\nimages/2.png,owl\n", "test.csv")
    assert class_counts(load_data(here, "train")) == {"cat": 1, "dog": 1, "owl": 0}
    assert class_counts(load_data(here, "test")) == {"cat": 0, "dog": 0, "owl": 1}


def test_labels_that_are_numbers_need_names(here, tmp_path):
    table(here, "image,label\nimages/0.png,10\nimages/1.png,9\n", "labels.csv")
    with pytest.raises(RvptError, match="its labels are numbers: give set@"):
        load_data(here).labeled()
    (tmp_path / "names.txt").write_text("\n".join(f"name {i}" for i in range(11)))
    data = load_data(f"{here}@{tmp_path / 'names.txt'}")
    assert [data.classes[label] for label in data.labeled()] == ["name 10", "name 9"]


def test_the_table_of_datasets_for_images_in_folders_wins_over_their_names(tmp_path):
    here = place_images(tmp_path / "set", *(f"test/{i}.png" for i in range(4)))
    table(
        here / "test",
        "file_name,label\n" + "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(4)),
        "metadata.csv",
    )
    assert class_counts(load_data(here, "test")) == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    "text",
    [
        "file_name,label\ntrain/0.png,cat\ntest/0.png,dog\n",
        "file_name,label\n./train/0.png,cat\n./test/0.png,dog\n",
        "file_name,label,split\ntrain/0.png,cat,train\ntest/0.png,dog,test\n",
    ],
    ids=["folders", "folders of the current one", "column"],
)
def test_one_table_may_hold_several_splits(tmp_path, text):
    here = table(place_images(tmp_path / "set", "train/0.png", "test/0.png"), text, "metadata.csv")
    assert class_counts(load_data(here, "test")) == {"cat": 0, "dog": 1}
    with pytest.raises(RvptError, match=r"several splits \(train, test\)"):
        load_data(here)


def test_no_table_of_a_folder_is_left_out_without_a_word(here):
    table(here, "image,label\nimages/0.png,a\n")
    table(here, "image,label\nimages/1.png,b\n", "test tube.csv")
    with pytest.raises(RvptError, match=r"several splits \(test tube, train\)"):
        load_data(here)
    assert class_counts(load_data(here, "test tube")) == {"a": 0, "b": 1}
    table(here, "image\tlabel\nimages/1.png\tb\n", "train.tsv")
    with pytest.raises(RvptError, match=r"train\.csv and train\.tsv are both split train: give one of them"):
        load_data(here, "train")


def test_a_file_of_another_split_is_refused(here):
    table(here, "image,caption\nimages/0.png,a\n")
    with pytest.raises(RvptError, match=r"train\.csv has no split 'test': choose from train"):
        load_data(here / "train.csv", "test")


def test_class_folders_beside_a_table_are_refused(tmp_path):
    here = table(image_folder(tmp_path / "set"), "a,b\n1,2\n", "notes.csv")
    assert len(load_data(here, "test")) == 4
    table(here, "image,label\ntest/cat/0.png,x\n", "labels.csv")
    with pytest.raises(RvptError, match=r"holds class folders and a table: give .*labels\.csv, or move the table away"):
        load_data(here, "test")


def test_absolute_paths_and_those_of_windows_are_read(here, tmp_path):
    table(tmp_path, f"image,caption\n{here}/images/0.png,a\nset\\images\\1.png,b\n", "far.csv")
    assert load_data(tmp_path / "far.csv").pixels(torch.arange(2), 8).shape == (2, 3, 8, 8)


def test_brackets_and_other_letters_in_paths(tmp_path):
    here = place_images(tmp_path / "Bücher [v2]", "bilder [1]/ü.png")
    table(here, "image,caption\nbilder [1]/ü.png,ein Hund\n")
    data = load_data(here)
    assert data.pixels(torch.arange(1), 8).shape == (1, 3, 8, 8)
    assert (data.name, captions(data)) == ("Bücher [v2]", [["ein Hund"]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,caption\n../x.png,a\n", r"row 0: \.\./x\.png leaves .*set: write an absolute path"),
        ("image,caption\nimages/../../x.png,a\n", r"row 0: .* leaves .*set"),
        ("image,caption\nhttps://a.org/b.png,a\n", "row 0: https://a.org/b.png is a URL: download the images first"),
        ("image,caption\n,a\n", "row 0 names no image"),
        ("image,caption\nimages/0.png,a, b\n", "line 2 has 3 values, the first line 2: quote texts"),
        ("image,label\nimages/0.png,a\nimages/0.png,b\n", r"images/0\.png has several labels: leave one"),
        ("image,label\nimages/0.png,a\nimages/1.png,\n", "image 1 has no label"),
        ("image,caption\n", "has no rows"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(here, text, words):
    with pytest.raises(RvptError, match=words) as refusal:
        load_data(table(here, text))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "image,caption\nimages/0.png,ü\n".encode("latin-1"), "cannot be read as a table in UTF-8"),
        ("a.csv", b"words,more\n1,2\n", "has no image column: it has words, more"),
        ("a.jsonl", b'{"image": "images/0.png"}\n{bad\n', "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 is not a JSON object"),
    ],
)
def test_files_that_are_no_tables_are_refused(here, name, content, words):
    (here / name).write_bytes(content)
    with pytest.raises(RvptError, match=words):
        load_data(here / name)


def test_a_caption_column_is_chosen_by_its_name(here):
    table(here, "image,caption,note\nimages/0.png,a,b\n")
    assert captions(load_data(here, caption_column="note")) == [["b"]]
    with pytest.raises(RvptError, match="has no column 'words': it has image, caption, note"):
        load_data(here, caption_column="words")


def test_no_image_is_opened_before_it_is_read(here, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opened"))
    assert len(load_data(table(here, "image,label\nimages/0.png,a\nimages/1.png,b\n"))) == 2

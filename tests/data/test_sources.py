"""Hugging Face data sets: Parquet in a folder, the hub, or in memory; columns, splits and configurations."""

import os
import subprocess
import sys
from threading import Event, Thread
from types import SimpleNamespace

import pytest
import torch

from helpers import random_image
from rvpt import Dataset, load_data
from rvpt.data.hub import asking_hub
from rvpt.errors import RvptError
from rvpt.evaluation.captioning import load_captioner
from rvpt.models.formats import tokenizers
from rvpt.models.formats.base import Parts
from rvpt.models.formats.load import load_clip

IMAGES = [random_image(9, 9, 1), random_image(7, 7, 2)]


@pytest.fixture
def here(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def made(columns, **features):
    """A `datasets.Dataset` of images and other columns."""
    import datasets

    return datasets.Dataset.from_dict(columns, features=datasets.Features(image=datasets.Image(), **features))


def pairs(**changes):
    """Two images with labels and captions; `changes` replaces columns."""
    import datasets

    columns = {"image": IMAGES, "label": [1, 0], "captions": [["a", "b"], ["c"]], "note": ["x", "y"], **changes}
    label, text = datasets.ClassLabel(names=["cat", "dog"]), datasets.Value("string")
    return made(columns, label=label, captions=[text], note=text)


def two_label_columns():
    import datasets

    style, label = datasets.ClassLabel(names=["photo", "art"]), datasets.ClassLabel(names=["cat", "dog"])
    return made({"image": [IMAGES[0], None], "style": [0, 0], "label": [1, 0]}, style=style, label=label)


def parquet(folder, dataset=None, split="test"):
    """The data set as one of the hub is on disk."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (dataset or pairs()).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def check_pairs(data):
    assert data.classes == ("cat", "dog")
    assert data.labeled().tolist() == [1, 0]
    assert [data.captions(0), data.captions(1)] == [["a", "b"], ["c"]]
    expected = Dataset.from_images(IMAGES)
    for place, size in ((0, 9), (1, 7)):
        assert torch.equal(data.pixels(torch.tensor([place]), size), expected.pixels(torch.tensor([place]), size))


# Folders of Parquet


def test_a_parquet_folder_has_labels_captions_and_images(here):
    data = Dataset.from_folder(parquet(here))
    check_pairs(data)
    assert data.name == "set"
    check_pairs(load_data(str(here), "test"))
    assert Dataset.from_folder(here, caption_column="note").captions(1) == ["y"]


def test_a_split_must_be_chosen_where_there_are_several(here):
    parquet(parquet(here), pairs(label=[0, 0]), "train")
    with pytest.raises(
        RvptError, match=r"set has several splits \((train, test|test, train)\): pass one, as in split="
    ):
        load_data(str(here))
    assert load_data(str(here), "train").labeled().tolist() == [0, 0]
    with pytest.raises(RvptError, match=r"set has no split 'nope': choose from test, train"):
        load_data(str(here), "nope")


def test_one_of_several_data_sets_in_a_folder_is_chosen_by_its_name(here):
    for name in ("plain", "fancy"):
        parquet(here / name, two_label_columns())
    configs = "".join(f"- config_name: {n}\n  data_files: {n}/data/*.parquet\n" for n in ("plain", "fancy"))
    (here / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    words = r"holds several data sets \((plain, fancy|fancy, plain)\): give one as .*set:NAME"
    with pytest.raises(RvptError, match=words):
        load_data(str(here), "train")
    with pytest.raises(RvptError, match=words):
        load_data(str(here))
    assert load_data(f"{here}:fancy", "train").classes == ("cat", "dog")
    assert Dataset.from_folder(here, "train", config="fancy").classes == ("cat", "dog")


def test_numbers_are_labels_once_a_file_names_them(here, tmp_path):
    import datasets

    columns = {"image": IMAGES, "id": [5, 6], "label": [2, 0]}
    parquet(here, made(columns, id=datasets.Value("int64"), label=datasets.Value("int32")))
    with pytest.raises(RvptError, match="set: its labels are numbers: give set@FILE"):
        load_data(str(here)).labeled()
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nowl\neel\n")
    data = load_data(f"{here}@{names}")
    assert [data.classes[label] for label in data.labeled()] == ["owl", "cat"]
    names.write_text("cat\ndog\n")
    with pytest.raises(RvptError, match="has 2 names, set 3 classes"):
        load_data(f"{here}@{names}")


def test_of_several_columns_of_classes_the_one_called_label_counts(here):
    assert load_data(str(parquet(here, two_label_columns()))).classes == ("cat", "dog")


def test_a_missing_image_is_named(here):
    data = load_data(str(parquet(here, two_label_columns())))
    with pytest.raises(RvptError, match=r"set: image 1 \(no file of its own\) cannot be read"):
        data.pixels(torch.arange(2), 8)


@pytest.mark.parametrize("label", [-1, None])
def test_a_hidden_label_is_refused(here, label):
    with pytest.raises(RvptError, match=rf"image 1 has no label \(it is {label}\): choose another split"):
        load_data(str(parquet(here, pairs(label=[0, label]))))


@pytest.mark.parametrize("captions", [None, [], [None]])
def test_an_image_without_a_caption_is_named(here, captions):
    data = load_data(str(parquet(here, pairs(captions=[["a"], captions]))))
    assert data.captions(0) == ["a"]
    with pytest.raises(RvptError, match="image 1 has no caption in column 'captions'"):
        data.captions(1)


def test_a_caption_column_that_is_not_there_is_refused_with_those_that_are(here):
    with pytest.raises(RvptError, match="no column 'words': it has image, label, captions, note"):
        load_data(str(parquet(here)), caption_column="words")


def test_data_without_images_are_refused(here):
    (here / "words.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        RvptError, match="set has no images: it needs one subfolder of images per class, Parquet files, WebDataset"
    ):
        load_data(str(here), "train")
    with pytest.raises(RvptError, match=r"words\.csv has no image column: it has a, b"):
        load_data(str(here / "words.csv"), "train")
    import pandas

    pandas.DataFrame({"a": [1]}).to_parquet(here / "train.parquet")
    with pytest.raises(RvptError, match="set has no image column: it has a"):
        load_data(str(here), "train")


# In memory


def test_a_data_set_in_memory():
    data = Dataset.from_huggingface(pairs())
    check_pairs(data)
    assert data.name == "dataset"
    named = Dataset.from_huggingface(pairs(), name="mine", caption_column="note")
    assert (named.name, named.captions(0)) == ("mine", ["x"])


def test_one_of_several_splits_in_memory_must_be_chosen():
    import datasets

    both = datasets.DatasetDict(train=pairs(), test=pairs(label=[0, 0]))
    with pytest.raises(
        RvptError, match=r"this DatasetDict has several splits \(train, test\): pass one, as in split=tr"
    ):
        Dataset.from_huggingface(both)
    assert Dataset.from_huggingface(both, "test").labeled().tolist() == [0, 0]
    with pytest.raises(RvptError, match="list is not a data set: give a name, a path"):
        Dataset.from_huggingface([1, 2])


# The hub


@pytest.fixture
def hub(monkeypatch):
    """A hub with one data set of two splits, and what it was asked for."""
    import datasets

    asked = []

    def split_names(place, config=None, *, revision=None):
        asked.append((place, config, revision))
        return ["train", "test"] if config is None else ["test"]

    def load(place, config=None, *, split, revision=None):
        asked.append((place, config, split, revision))
        return pairs()

    monkeypatch.setattr(datasets, "get_dataset_split_names", split_names)
    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_a_data_set_of_the_hub_is_asked_for_at_its_revision(hub):
    check_pairs(Dataset.from_hub("owner/pets", "train", revision="abc"))
    assert hub == [("owner/pets", None, "train", "abc")]
    data = load_data("owner/pets:small", revision="v2")  # its only split
    assert data.name == "pets"
    assert hub[1:] == [("owner/pets", "small", "v2"), ("owner/pets", "small", "test", "v2")]


def test_a_split_of_the_hub_must_be_chosen_where_there_are_several(hub):
    with pytest.raises(RvptError, match=r"owner/pets has several splits \(train, test\): pass one, as in split=train"):
        Dataset.from_hub("owner/pets")


def test_the_code_of_a_data_set_is_never_run(hub):
    import datasets

    Dataset.from_hub("owner/pets", "train")
    assert datasets.config.HF_DATASETS_TRUST_REMOTE_CODE is False


def test_a_data_set_that_is_not_on_the_hub_is_refused():
    with pytest.raises(
        RvptError, match="nobody/nothing cannot be read as a data set: no such folder here, and the hub"
    ) as refusal:
        load_data("nobody/nothing", "train")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def deaf(monkeypatch):
    """A hub that does not answer; it counts how often it is asked."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    class Deaf:
        asked = 0

        def head(self, *_, **__):
            self.asked += 1
            raise OSError("no route to host")

        request = stream = get = head

    session = Deaf()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: session)
    monkeypatch.setattr(_http, "get_session", lambda: session)
    yield session
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("read", [lambda: load_data("nobody/nothing", "train"), lambda: load_clip("nobody/nothing")])
def test_a_hub_that_does_not_answer_is_asked_once(read, deaf):
    with pytest.raises(RvptError, match=r"no such folder here, and the hub cannot be asked .*no route to host"):
        read()
    assert deaf.asked == 1


@pytest.mark.parametrize(
    "read",
    [
        lambda: tokenizers.clip_tokenizer("model"),
        lambda: tokenizers.find_tokenizer(Parts("", {}, tokenizer="nobody/nothing"), 1, "model"),
        lambda: load_captioner("nobody/nothing"),
    ],
    ids=["clip", "named", "llava"],
)
def test_what_else_comes_from_a_hub_that_does_not_answer_is_asked_for_once(read, deaf, monkeypatch):
    monkeypatch.setattr(tokenizers, "find_spec", lambda package: None)
    with pytest.raises(RvptError):
        read()
    assert deaf.asked == 1


@pytest.mark.usefixtures("deaf")
def test_a_hub_that_is_down_is_asked_once(deaf, monkeypatch):
    monkeypatch.setattr(deaf, "head", lambda *_, **__: SimpleNamespace(status_code=503))
    with asking_hub() as silent:
        assert silent.endswith("answers with status 503")


def test_threads_that_ask_the_hub_leave_its_client_as_it_was():
    inside, leave = Event(), Event()

    def ask():
        with asking_hub():
            inside.set()
            leave.wait(9)

    other = Thread(target=ask)
    with asking_hub():
        other.start()
        assert not inside.wait(0.1)
    leave.set()
    other.join()


def test_a_hub_that_does_not_answer_once_may_be_asked_again(tmp_path):
    code = (
        "import rvpt\ntry:\n    rvpt.load_data('nobody/nothing', 'train')\nexcept rvpt.RvptError as error:\n"
        "    import datasets\n    print('cannot be reached' in str(error), datasets.config.HF_HUB_OFFLINE)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert found.stdout.split() == ["True", "False"]

"""The registry of layouts, and what all of them have in common."""

import io
import re
import tarfile
from pathlib import Path

import pytest
import torch

from helpers import encoded, image_folder
from rvpt import Dataset, load_data
from rvpt.data.identifiers import canonical
from rvpt.data.layouts import LAYOUTS
from rvpt.data.source import Layout, Source
from rvpt.errors import RvptError

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "data.md"


def saved(folder):
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    columns = {"image": [{"bytes": encoded(), "path": None}] * 2, "label": [0, 1]}
    return datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)


def card(folder):
    parquet(folder)
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: a\n  data_files: train.parquet\n---\n")


def webdataset(folder):
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, content in (("a.png", encoded()), ("a.cls", b"cat"), ("b.png", encoded()), ("b.cls", b"dog")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def table(folder):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(encoded())
    (folder / "train.csv").write_text("image,label\na.png,cat\nb.png,dog\n")


def parquet(folder):
    import pandas

    pandas.DataFrame({"image": [encoded()] * 2, "label": ["cat", "dog"]}).to_parquet(folder / "train.parquet")


def folders(folder):
    image_folder(folder, "train", n=1)


WRITERS = {
    "saved": saved,
    "card": card,
    "webdataset": webdataset,
    "table": table,
    "parquet": parquet,
    "folders": folders,
}


@pytest.fixture
def here(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognized_and_gives_the_same_data_set(here, name):
    WRITERS[name](here)
    assert next(found for found, layout in LAYOUTS.items() if layout.recognizes(here)) == name
    data = load_data(here, "train")
    assert (data.name, data.classes, data.labeled().tolist()) == ("set", ("cat", "dog"), [0, 1])
    assert torch.equal(data.pixels(torch.tensor([0]), 8)[0, :, 0, 0], torch.tensor([1.0, 0, 0]))
    with pytest.raises(RvptError, match="split"):
        load_data(here, "test")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_guide_names_every_layout_and_tests_that_exist(name):
    assert f"| {LAYOUTS[name].summary}" in GUIDE.read_text(encoding="utf-8")


def test_the_tests_that_the_guide_names_exist():
    named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", GUIDE.read_text(encoding="utf-8"))
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (Path(__file__).parent / f"{file}.py").read_text(encoding="utf-8"), test


def test_a_new_layout_is_one_entry(here, monkeypatch):
    (here / "images.raw").write_bytes(b"x")
    new = Layout(
        "raw images",
        lambda place: (place / "images.raw").is_file(),
        lambda place, asked: Source(
            place.name, lambda rows, size: torch.zeros(len(rows), 3, size, size), torch.arange(3)
        ),
    )
    with pytest.raises(RvptError, match="set has no images"):
        load_data(here)
    LAYOUTS.register("raw", new)
    try:
        assert len(Dataset.from_folder(here)) == 3
    finally:
        LAYOUTS.unregister("raw")


def test_a_configuration_of_what_has_none_is_refused(here):
    folders(here)
    with pytest.raises(RvptError, match="set is one data set: remove :small"):
        load_data(f"{here}:small")


def test_paths_and_data_sets_are_accepted_as_names_are(here, tmp_path, monkeypatch):
    folders(here)
    monkeypatch.chdir(tmp_path)
    data = load_data(Path("set"), "train")
    assert len(data) == len(load_data("set", "train")) == 2
    assert load_data(data) is data
    with pytest.raises(RvptError, match="set is loaded already: remove split=train"):
        load_data(data, "train")
    with pytest.raises(RvptError, match="no/such is not a folder"):
        load_data(Path("no/such"))


@pytest.mark.parametrize("wrong", [5, [torch.zeros(3, 8, 8)], {"image": 1}, None])
def test_what_is_not_a_data_set_is_refused_with_the_way_to_make_one(wrong):
    with pytest.raises(RvptError, match=r"is not a data set: give a name, a path or .* to rvpt\.Dataset\.from_images"):
        load_data(wrong)


def test_every_spelling_of_a_path_is_the_same_data_set(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("a\nb\n")
    spellings = ("set@names.txt", "./set/@names.txt", f"{here}@{tmp_path}/names.txt", "set/../set@./names.txt")
    assert {canonical(spelling) for spelling in spellings} == {f"{here}@{tmp_path / 'names.txt'}"}
    assert canonical("owner/pets:small") == "owner/pets:small"
    assert canonical("scenes:50") == "scenes:50"

"""WebDataset tars: samples, labels, captions, splits, and files that are damaged or hostile."""

import io
import tarfile

import pytest
import torch

from helpers import class_counts, encoded, image_folder
from rvpt import Dataset, load_data
from rvpt.errors import RvptError

RED, BLUE = encoded("red"), encoded("blue", "JPEG")


def write_tar(path, **members):
    """A tar; `members` are names with __ for the dot, and their contents."""
    return write_members(path, [(name.replace("__", "."), content) for name, content in members.items()])


def write_members(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def here(tmp_path):
    return tmp_path / "set"


def test_clip_benchmarks_layout_has_numbers_and_a_file_of_names(here):
    write_tar(here / "test" / "0.tar", s0__png=RED, s0__cls=b"1", s1__jpg=BLUE, s1__cls=b"0\n")
    (here / "test" / "nshards.txt").write_text("1")
    with pytest.raises(RvptError, match="set: its labels are numbers"):
        load_data(here, "test").labeled()
    (here / "classnames.txt").write_text("cat\ndog\n")
    data = load_data(here, "test")
    assert [data.classes[label] for label in data.labeled()] == ["dog", "cat"]
    assert torch.equal(data.pixels(torch.tensor([0]), 8)[0, :, 0, 0], torch.tensor([1.0, 0, 0]))
    assert data.pixels(torch.tensor([1]), 8)[0, 2].min() > 0.9
    with pytest.raises(RvptError, match="has no split 'train': choose from test"):
        load_data(here, "train")


def test_captions_are_text_members_or_entries_of_json(here):
    write_tar(here / "00000.tar", a__jpg=BLUE, a__txt="é".encode(), a__json=b'{"caption": "c", "label": "dog"}')
    write_tar(here / "00001.tar", a__jpg=BLUE, a__txt=b"z", a__json=b'{"caption": "d", "label": "cat"}')
    data = load_data(here, "train")
    assert (len(data), data.captions(0), data.captions(1)) == (2, ["é"], ["z"])
    assert class_counts(data) == {"cat": 1, "dog": 1}
    assert load_data(here, caption_column="caption").captions(1) == ["d"]


def test_words_have_the_same_index_in_every_split(here):
    write_tar(here / "train-0.tar", a__png=RED, a__cls=b"dog")
    write_tar(here / "test-0.tar", a__png=RED, a__cls=b"cat")
    assert class_counts(load_data(here, "test")) == {"cat": 1, "dog": 0}


def test_one_tar_and_names_with_brackets(tmp_path):
    tar = write_members(tmp_path / "a [1]" / "shard-{0}.tar", [("./ünï/0.PNG", RED), ("./ünï/0.TXT", b"a")])
    data = Dataset.from_folder(tar)
    assert (data.name, data.captions(0)) == ("a [1]", ["a"])
    assert data.pixels(torch.arange(1), 8).shape == (1, 3, 8, 8)


def test_the_same_key_in_two_tars_are_two_samples_and_dots_end_a_key(here):
    for shard in "01":
        write_tar(here / f"{shard}.tar", a__png=RED, a__seg__png=BLUE)
    assert len(load_data(here)) == 2
    write_members(here / "x" / "dots.tar", [("img.v2.1.png", RED), ("img.v2.2.png", RED)])
    with pytest.raises(RvptError, match="hold no images; a key ends at the first dot of a name"):
        load_data(here / "x")


def test_a_sample_without_an_image_is_named_when_it_is_read(here):
    write_tar(here / "0.tar", a__png=RED, a__txt=b"a", b__txt=b"b", c__png=RED, c__jpg=RED, c__txt=b"c")
    data = load_data(here)
    assert len(data) == 3
    with pytest.raises(
        RvptError, match=r"2 images: image 1 \(.*0\.tar: b\) cannot be read \(the sample has no image\)"
    ):
        data.pixels(torch.arange(3), 8)


def test_a_missing_label_is_refused(here):
    write_tar(here / "0.tar", a__png=RED, a__cls=b"0", b__png=RED)
    with pytest.raises(RvptError, match="image 1 has no label"):
        load_data(here)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("../a.png", RED)], r"member '\.\./a\.png' leaves the tar"),
        ([("/a.png", RED)], "member '/a.png' leaves the tar"),
        ([("a.png", RED), ("a.png", BLUE)], r"a\.png comes twice"),
        ([("a.png", RED), ("a.json", b"{bad")], r"a\.json is not JSON"),
    ],
)
def test_members_that_are_unsafe_or_damaged_are_refused(here, members, words):
    write_members(here / "0.tar", members)
    with pytest.raises(RvptError, match=words):
        load_data(here)


def test_links_are_refused(here):
    here.mkdir()
    with tarfile.open(here / "0.tar", "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(RvptError, match=r"a\.png is not a plain file: write the tar without links"):
        load_data(here)


@pytest.mark.parametrize("end", [0, 600, 1024, 1500, 2048, 2600])
def test_a_tar_that_was_cut_is_refused_and_not_read_in_part(here, end):
    tar = write_members(here / "0.tar", [(f"{i}.png", RED) for i in range(3)])
    assert len(load_data(here)) == 3
    tar.write_bytes(tar.read_bytes()[:end])
    with pytest.raises(RvptError, match=r"0\.tar (is truncated|is damaged|cannot be read as a tar)"):
        load_data(here)


def test_a_damaged_header_and_joined_tars_are_refused(here):
    tar = write_members(here / "0.tar", [(f"{i}.png", RED) for i in range(3)])
    whole = tar.read_bytes()
    tar.write_bytes(whole[:1030] + b"?" + whole[1031:])
    with pytest.raises(RvptError, match="is damaged after byte 1024, or several tars joined"):
        load_data(here)
    tar.write_bytes(whole + whole)
    with pytest.raises(RvptError, match="or several tars joined"):
        load_data(here)


def test_compressed_tars_and_tars_beside_class_folders_are_refused(here):
    write_tar(here / "0.tar.gz", a__png=RED)
    with pytest.raises(
        RvptError, match=r"0\.tar\.gz is compressed, so its images cannot be read one by one: unpack it"
    ):
        load_data(here)
    assert len(load_data(image_folder(here), "test")) == 4
    write_tar(here / "all.tar", a__png=RED)
    with pytest.raises(RvptError, match=r"holds class folders and tars: give .*all\.tar, or move it away"):
        load_data(here, "test")


def test_images_are_read_from_their_place_and_not_unpacked(here, monkeypatch):
    write_tar(here / "0.tar", a__png=RED, a__txt=b"a", b__png=BLUE, b__txt=b"b")
    data = load_data(here)
    monkeypatch.setattr(tarfile, "open", lambda *_: pytest.fail("indexed again"))
    assert torch.equal(data.pixels(torch.tensor([1, 0]), 8)[1, :, 0, 0], torch.tensor([1.0, 0, 0]))

"""Images that cannot be read: an error that names them, or they are left out with a count and a list."""

import errno

import pytest
import torch
from PIL import Image

from helpers import broken_folder, class_counts, image_folder, random_image
from rvpt import Dataset, load_data
from rvpt.data.mix import mix
from rvpt.errors import MachineError, RvptError


@pytest.fixture
def broken(tmp_path):
    return broken_folder(tmp_path / "set")


def test_the_error_names_all_of_a_batch_and_the_way_out(broken):
    words = r"2 images: image 1 \(.*cat/1\.png\) cannot be read .*; image 4 \(.*dog/1\.png\).* with on_error=skip"
    with pytest.raises(RvptError, match=words):
        load_data(broken, "test").pixels(torch.arange(6), 8)


def test_an_error_names_ten_images_and_counts_the_rest():
    data = Dataset.from_images([None] * 12)
    with pytest.raises(RvptError, match=r"images: 12 images: image 0 .* image 9 .*; and 2 more: fix or remove them"):
        data.pixels(torch.arange(12), 8)


def test_skipped_images_are_listed_and_the_others_keep_their_rows(broken, caplog):
    data = load_data(broken, "test", on_error="skip")
    assert (data.rows.tolist(), class_counts(data)) == ([0, 2, 3, 5], {"cat": 2, "dog": 2})
    assert torch.equal(data.pixels(torch.tensor([2]), 8), load_data(broken, "test").pixels(torch.tensor([3]), 8))
    assert [reason.split()[1] for reason in data.skipped] == ["1", "4"]
    (message,) = caplog.messages
    assert message.startswith("set: 2 of 6 images cannot be read and are left out:\n")
    assert message.count("1.png)") == 2
    assert data.few_shot(1).skipped == data.skipped


def test_a_warning_names_a_hundred_images_and_counts_the_rest(caplog):
    load_data(Dataset.from_images([*[None] * 102, random_image(8, 8)]), on_error="skip")
    (message,) = caplog.messages
    assert message.count("cannot be read (") == 100
    assert message.endswith("... and 2 more")


def test_images_that_broke_later_are_listed_after_the_others(broken):
    once = load_data(broken, "test", on_error="skip")
    (broken / "test" / "cat" / "0.png").write_bytes(b"")
    assert [reason.split()[1] for reason in load_data(once, on_error="skip").skipped] == ["1", "4", "0"]


def test_a_set_that_can_be_read_is_the_same_with_skip(tmp_path, caplog):
    data = load_data(image_folder(tmp_path / "set"), on_error="skip")
    assert (len(data), data.skipped, caplog.messages) == (4, (), [])


def test_it_is_an_error_if_no_image_can_be_read():
    with pytest.raises(RvptError, match="images: none of the 2 images can be read"):
        load_data(Dataset.from_images([None, None]), on_error="skip")
    with pytest.raises(RvptError, match="on_error='omit': choose from stop, skip"):
        load_data("scenes:2", "test", on_error="omit")


def test_mixed_sets_list_what_each_left_out(broken):
    captioned = load_data(broken, "test", on_error="skip").with_templates(["{}"])
    assert len(mix([captioned, captioned]).skipped) == 4


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE])
def test_an_error_of_the_machine_is_not_a_broken_image(broken, monkeypatch, code):
    def fail(*_):
        raise OSError(code, "the machine")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MachineError, match="the machine"):
        load_data(broken, "test", on_error="skip")

"""Data sets: choosing, mixing, caching, and going through them in batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import image_folder, memory_data, random_image, random_pixels
from rvpt import Dataset
from rvpt.data.mix import mix
from rvpt.errors import RvptError

CLASSES = ("red fox", "owl", "Grey_seal")
LABELS = [0, 1, 2, 0, 1, 0, 0, 2, 1, 0]
LABELED = memory_data(10, LABELS, CLASSES)


def captioned(n, word, seed=0):
    return memory_data(n, captions=[[f"{word} {i}"] for i in range(n)], seed=seed)


def all_pixels(data, size=16):
    return data.pixels(torch.arange(len(data)), size)


@pytest.mark.parametrize("shots", [1, 2])
def test_few_shot_draws_exactly_so_many_images_per_class(shots):
    few = LABELED.few_shot(shots, seed=3)
    assert few.labeled().tolist() == [label for label in range(3) for _ in range(shots)]
    assert len(set(few.rows.tolist())) == len(few)
    assert [LABELS[row] for row in few.rows.tolist()] == few.labeled().tolist()


def test_few_shot_depends_on_the_seed_alone():
    draws = [tuple(LABELED.few_shot(2, seed).rows.tolist()) for seed in range(8)]
    assert draws == [tuple(LABELED.few_shot(2, seed).rows.tolist()) for seed in range(8)]
    assert len(set(draws)) > 1


def test_few_shot_takes_all_images_of_a_class_with_fewer_and_names_it(caplog):
    few = LABELED.few_shot(3)
    assert few.labeled().tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert caplog.messages == ["memory: fewer than 3 images of Grey_seal (2): all are used"]
    with pytest.raises(RvptError, match="memory: no class has 6 images, the largest has 5: pass shots=5 or fewer"):
        LABELED.few_shot(6)
    caplog.clear()
    memory_data(14, [0, 0, *range(1, 13)], tuple("abcdefghijklm")).few_shot(2)
    assert caplog.messages == [
        "memory: fewer than 2 images of b (1), c (1), d (1), e (1), f (1), g (1), h (1), i (1), j (1), k (1) "
        "and 2 more classes: all are used"
    ]


def test_few_shot_skips_classes_without_images():
    assert LABELED.without(["owl"]).few_shot(1).labeled().tolist() == [0, 2]
    with pytest.raises(RvptError, match="no images left to draw from"):
        LABELED.without(CLASSES).few_shot(1)


def test_without_drops_the_images_and_keeps_the_list_of_classes():
    rest = LABELED.without(["owl", "grey seal"])
    assert rest.rows.tolist() == [0, 3, 5, 6, 9]
    assert rest.classes == CLASSES
    assert LABELED.without([]).rows.tolist() == list(range(10))


def test_only_keeps_the_images_of_some_classes_and_the_list_of_all():
    kept = LABELED.only(["grey seal", "OWL", "owl"])
    assert kept.rows.tolist() == [1, 2, 4, 7, 8]
    assert kept.classes == CLASSES
    assert kept.name == "memory (only owl, Grey_seal)"
    both = torch.cat([kept.rows, LABELED.without(["owl", "grey seal"]).rows])
    assert sorted(both.tolist()) == list(range(10))


def test_only_refuses_a_class_without_images():
    with pytest.raises(RvptError, match="memory has no image of class 'owl': leave it out"):
        LABELED.without(["owl"]).only(["red fox", "owl"])


def test_present_numbers_the_classes_that_have_images():
    names, places = LABELED.without(["owl"]).present()
    assert names == ("red fox", "Grey_seal")
    assert [names[place] for place in places] == [CLASSES[label] for label in LABELS if label != 1]
    with pytest.raises(RvptError, match=r"images of 1 class\(es\), at least two are needed"):
        LABELED.only(["owl"]).present()


@pytest.mark.parametrize("name", ["Grey_seal", "grey seal", "GREY_SEAL"])
def test_class_index_reads_spaces_underscores_and_case_alike(name):
    assert LABELED.has_class(name)
    assert LABELED.class_index(name) == 2


def test_an_unknown_class_is_refused_with_those_there_are():
    assert not LABELED.has_class("dog")
    with pytest.raises(RvptError, match=r"no class 'dog': it has red fox, owl, Grey_seal$"):
        LABELED.class_index("dog")
    with pytest.raises(RvptError, match=r"it has 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.$"):
        memory_data(1, [0], tuple(map(str, range(9)))).class_index("dog")


def test_images_of_a_class_are_found_by_their_labels_before_their_captions():
    captions = [["a tiger shark"], ["a tiger"], ["two tigers"]]
    sharks = memory_data(3, [0, 1, 1], ("shark", "tiger"), captions)
    assert sharks.of_class("tiger").tolist() == [False, True, True]
    assert memory_data(3, captions=captions).of_class("tiger").tolist() == [True, True, True]
    assert sharks.of_class("lion").tolist() == [False, False, False]
    unlabeled = memory_data(3, None, ("shark", "tiger"), captions)
    assert unlabeled.of_class("tiger").tolist() == [True, True, True]
    with pytest.raises(RvptError, match="no class 'lion'"):
        memory_data(3, [0, 1, 1], ("shark", "tiger")).of_class("lion")


@given(st.lists(st.integers(0, 9), max_size=12), st.data())
def test_select_keeps_the_numbers_of_rows(indices, data):
    part = LABELED.select(torch.tensor(indices, dtype=torch.int64))
    assert part.rows.tolist() == indices
    assert part.labeled().tolist() == [LABELS[i] for i in indices]
    assert torch.equal(all_pixels(part), LABELED.pixels(torch.tensor(indices, dtype=torch.int64), 16))
    again = data.draw(st.lists(st.integers(0, len(indices) - 1), max_size=5)) if indices else []
    assert part.select(torch.tensor(again, dtype=torch.int64)).rows.tolist() == [indices[i] for i in again]


def test_a_sample_is_drawn_by_the_seed_and_keeps_the_order():
    rows = LABELED.sample(4, seed=1).rows.tolist()
    assert rows == sorted(set(rows)) == LABELED.sample(4, seed=1).rows.tolist()
    assert len(rows) == 4
    assert len({tuple(LABELED.sample(4, seed).rows.tolist()) for seed in range(8)}) > 1
    assert LABELED.sample(99).rows.tolist() == list(range(10))


def test_templates_name_the_class_of_the_row_in_every_subset():
    data = LABELED.with_templates(["a {}.", "one {}!"]).select(torch.tensor([7, 1]))
    assert data.captions(0) == ["a Grey seal.", "one Grey seal!"]
    assert data.captions(1) == ["a owl.", "one owl!"]


def test_missing_captions_and_labels_are_named():
    with pytest.raises(RvptError, match="memory has no captions: it needs a column"):
        LABELED.captions(0)
    with pytest.raises(RvptError, match="memory has no class labels: put images into class folders"):
        captioned(2, "a").labeled()
    with pytest.raises(RvptError, match="memory: its labels are numbers: give memory@FILE"):
        memory_data(2, [0, 1]).labeled()


def test_cached_is_the_same_set_and_reads_each_image_once():
    part = LABELED.select(torch.tensor([8, 2, 5]))
    reads = []

    def counted(rows, size):
        reads.extend(rows.tolist())
        return part.reader(rows, size)

    cached = replace(part, reader=counted).cached(16)
    assert torch.equal(all_pixels(cached), all_pixels(part))
    assert torch.equal(all_pixels(cached.select(torch.tensor([2, 0]))), part.pixels(torch.tensor([2, 0]), 16))
    assert torch.equal(all_pixels(cached, 8), all_pixels(part, 8))
    assert cached.labeled().tolist() == part.labeled().tolist()
    assert reads == [8, 2, 5]


def test_a_set_that_would_fill_the_memory_is_not_cached(monkeypatch):
    monkeypatch.setattr("rvpt.data.dataset.CACHE_BYTES", 3 * 16 * 16 * 10 - 1)
    assert LABELED.cached(16) is LABELED
    assert LABELED.cached(15) is not LABELED


def test_mix_numbers_images_and_captions_through():
    parts = [captioned(3, "a", 1), captioned(4, "b", 2).select(torch.tensor([3, 1])), captioned(2, "c", 3)]
    whole = mix(parts)
    assert whole.rows.tolist() == list(range(7))
    assert [whole.captions(i) for i in range(7)] == [[t] for t in ("a 0", "a 1", "a 2", "b 3", "b 1", "c 0", "c 1")]
    images = torch.cat([all_pixels(part) for part in parts])
    assert torch.equal(all_pixels(whole), images)
    shuffled = torch.tensor([6, 0, 3, 3, 5])
    assert torch.equal(whole.pixels(shuffled, 16), images[shuffled])
    assert whole.select(shuffled).captions(2) == ["b 3"]
    assert mix(parts[:1]) is parts[0]


@given(st.integers(1, 13))
def test_batches_cover_the_set_in_order(batch_size):
    parts = list(LABELED.batches(batch_size, 16))
    assert torch.cat([indices for indices, _ in parts]).tolist() == list(range(10))
    assert torch.equal(torch.cat([pixels for _, pixels in parts]), all_pixels(LABELED))
    assert all(len(indices) == len(pixels) <= batch_size for indices, pixels in parts)


def test_batches_report_what_is_done():
    told = []
    for _ in LABELED.batches(4, 16, report=lambda *values: told.append(values)):
        pass
    assert told == [(4, 10, {}), (8, 10, {}), (10, 10, {})]


def test_an_empty_set_has_no_batches():
    assert list(LABELED.select(torch.tensor([], dtype=torch.int64)).batches(4, 16)) == []


def test_pixels_are_between_0_and_1():
    data = memory_data(2)
    stored = data.reader(torch.arange(2), 16)
    assert torch.equal(all_pixels(data), stored / 255)


# Images in memory


def test_images_in_memory_are_pil_images_or_tensors():
    image = random_image(16, 16)
    stored = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    data = Dataset.from_images([image, stored, stored / 255], [1, 0, 1], ["cat", "dog"])
    assert (data.name, data.classes, data.labeled().tolist()) == ("images", ("cat", "dog"), [1, 0, 1])
    assert torch.equal(all_pixels(data), (stored / 255).expand(3, -1, -1, -1))
    assert data.few_shot(1).labeled().tolist() == [0, 1]


def test_images_in_memory_may_be_one_tensor_and_the_labels_too():
    pixels = random_pixels(4, 20)
    data = Dataset.from_images(pixels, torch.tensor([0, 1, 1, 0]), ("cat", "dog"))
    assert torch.equal(data.pixels(torch.tensor([2]), 20), (pixels[2:3] * 255).round() / 255)
    assert data.labeled().tolist() == [0, 1, 1, 0]


def test_images_in_memory_need_no_labels():
    data = Dataset.from_images([random_image(20, 16)])
    assert all_pixels(data).shape == (1, 3, 16, 16)
    with pytest.raises(RvptError, match="images has no class labels"):
        data.labeled()


def test_images_and_labels_that_do_not_fit_are_refused():
    image = random_image(8, 8)
    with pytest.raises(RvptError, match="1 images and 2 labels: give one label per image"):
        Dataset.from_images([image], [0, 1], ["cat", "dog"])
    with pytest.raises(RvptError, match="label 2 has no class: there are 2 classes, counted from 0"):
        Dataset.from_images([image, image], [0, 2], ["cat", "dog"])
    with pytest.raises(RvptError, match="label -1 has no class"):
        Dataset.from_images([image], [-1], ["cat", "dog"])
    with pytest.raises(RvptError, match="images='pets' is a name"):
        Dataset.from_images("pets")


@pytest.mark.parametrize("image", ["cat.png", torch.zeros(1, 8, 8), torch.zeros(8, 8, 3), None])
def test_what_is_not_an_image_is_named_with_its_row(image):
    data = Dataset.from_images([random_image(8, 8), image])
    with pytest.raises(RvptError, match=r"images: image 1 \(in memory\) cannot be read \(.* is not an image"):
        all_pixels(data, 8)


def test_labels_in_memory_may_be_names():
    images = [random_image(8, 8)] * 3
    data = Dataset.from_images(images, ["dog", "cat", "dog"])
    assert (data.classes, data.labeled().tolist()) == (("cat", "dog"), [1, 0, 1])
    assert Dataset.from_images(images, ["Dog", "cat", "owl"], ("owl", "dog", "cat")).labeled().tolist() == [1, 2, 0]
    with pytest.raises(RvptError, match="label eel has no class: there are 2 classes"):
        Dataset.from_images(images, ["dog", "cat", "eel"], ("cat", "dog"))
    with pytest.raises(RvptError, match=r"label 0\.5 has no class"):
        Dataset.from_images(images, [0, 0.5, 1], ("cat", "dog"))


@pytest.mark.parametrize("count", [0, -1, 1.5, "3"])
def test_a_count_that_is_not_a_positive_whole_number_is_refused(scenes, count):
    for draw in (scenes.few_shot, scenes.sample):
        with pytest.raises(RvptError, match="is not a positive whole number"):
            draw(count)


def test_its_repr_is_one_short_line():
    assert repr(memory_data(3, [0, 1, 0], ["cat", "dog"])) == "Dataset('memory', 3 images, 2 classes)"
    assert repr(memory_data(2)) == "Dataset('memory', 2 images)"


def test_images_know_their_files(tmp_path):
    data = Dataset.from_folder(image_folder(tmp_path, "train", 2), "train")
    turned = data.select(torch.tensor([3, 0])).cached(16)
    assert [Path(turned.place(index)).relative_to(tmp_path / "train") for index in (0, 1)] == [
        Path("dog/1.png"), Path("cat/0.png")
    ]  # fmt: skip
    assert memory_data(2).place(0) is None

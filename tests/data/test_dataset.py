"""Data sets: choosing, mixing, decoding and opening them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from matplotlib import get_data_path
from PIL import Image

from helpers import memory_data, random_pixels
from rvpt.augment import crop_flip
from rvpt.data import mix, resize
from rvpt.errors import RvptError
from rvpt.readers import load_data, to_array

CLASSES = ("red fox", "owl", "Grey_seal")
LABELS = [0, 1, 2, 0, 1, 0, 0, 2, 1, 0]
LABELED = memory_data(10, LABELS, CLASSES)
PHOTO = Image.open(Path(get_data_path()) / "sample_data/grace_hopper.jpg").convert("RGB")


def captioned(n, word, seed=0):
    return memory_data(n, captions=[[f"{word} {i}"] for i in range(n)], seed=seed)


def all_pixels(data, size=16):
    return data.pixels(torch.arange(len(data)), size)


@pytest.mark.parametrize("shots", [1, 2])
def test_few_shot_takes_exactly_so_many_of_each_class(shots):
    few = LABELED.few_shot(shots, seed=3)
    assert few.labeled().tolist() == [label for label in range(3) for _ in range(shots)]
    assert len(set(few.rows.tolist())) == len(few)
    assert [LABELS[row] for row in few.rows.tolist()] == few.labeled().tolist()


def test_few_shot_depends_on_the_seed_alone():
    draws = [tuple(LABELED.few_shot(2, seed).rows.tolist()) for seed in range(8)]
    assert draws == [tuple(LABELED.few_shot(2, seed).rows.tolist()) for seed in range(8)]
    assert len(set(draws)) > 1


def test_few_shot_says_which_class_has_too_few_and_what_to_give():
    with pytest.raises(RvptError, match=r"'Grey_seal' has 2 images, 3 shots .* --shots 2 or fewer"):
        LABELED.few_shot(3)


def test_few_shot_skips_classes_without_images():
    assert LABELED.without(["owl"]).few_shot(1).labeled().tolist() == [0, 2]


def test_without_drops_the_images_and_keeps_the_list_of_classes():
    rest = LABELED.without(["owl", "gray seal"])
    assert rest.rows.tolist() == [0, 3, 5, 6, 9]
    assert rest.classes == CLASSES
    assert LABELED.without([]).rows.tolist() == list(range(10))


def test_only_keeps_the_images_of_some_classes_and_the_list_of_all():
    kept = LABELED.only(["gray seal", "OWL", "owl"])
    assert kept.rows.tolist() == [1, 2, 4, 7, 8]
    assert kept.classes == CLASSES
    assert kept.name == "memory (only owl, Grey_seal)"
    both = torch.cat([kept.rows, LABELED.without(["owl", "gray seal"]).rows])
    assert sorted(both.tolist()) == list(range(10))


def test_only_of_a_class_without_images_is_said():
    with pytest.raises(RvptError, match="memory has no image of class 'owl': leave it out"):
        LABELED.without(["owl"]).only(["red fox", "owl"])


@pytest.mark.parametrize("name", ["Grey_seal", "gray seal", "GREY_SEAL"])
def test_class_index_reads_spaces_underscores_and_case_alike(name):
    assert LABELED.class_index(name) == 2


def test_class_index_names_what_there_is():
    with pytest.raises(RvptError, match="no class 'dog': it has red fox, owl, Grey_seal"):
        LABELED.class_index("dog")


@given(st.lists(st.integers(0, 9), max_size=12), st.data())
def test_select_keeps_the_numbers_of_rows(indices, data):
    part = LABELED.select(torch.tensor(indices, dtype=torch.int64))
    assert part.rows.tolist() == indices
    assert part.labeled().tolist() == [LABELS[i] for i in indices]
    assert torch.equal(all_pixels(part), LABELED.pixels(torch.tensor(indices, dtype=torch.int64), 16))
    again = data.draw(st.lists(st.integers(0, len(indices) - 1), max_size=5)) if indices else []
    assert part.select(torch.tensor(again, dtype=torch.int64)).rows.tolist() == [indices[i] for i in again]


def test_templates_name_the_class_of_the_row_in_every_subset():
    data = LABELED.with_templates(["a {}.", "one {}!"]).select(torch.tensor([7, 1]))
    assert data.captions(0) == ["a Gray seal.", "one Gray seal!"]
    assert data.captions(1) == ["a owl.", "one owl!"]


def test_what_a_set_has_not_is_said():
    with pytest.raises(RvptError, match="memory has no captions: it needs a column"):
        LABELED.captions(0)
    with pytest.raises(RvptError, match="memory has no class labels: a column of ClassLabel"):
        captioned(2, "a").labeled()


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


@given(st.integers(1, 13))
def test_batches_cover_the_set_in_order(batch_size):
    parts = list(LABELED.batches(batch_size, 16))
    assert torch.cat([indices for indices, _ in parts]).tolist() == list(range(10))
    assert torch.equal(torch.cat([pixels for _, pixels in parts]), all_pixels(LABELED))
    assert all(len(indices) == len(pixels) <= batch_size for indices, pixels in parts)


def test_batches_of_an_empty_set_are_none():
    assert list(LABELED.select(torch.tensor([], dtype=torch.int64)).batches(4, 16)) == []


def test_pixels_lie_between_0_and_1():
    data = memory_data(2)
    stored = data.reader(torch.arange(2), 16)
    assert torch.equal(all_pixels(data), stored / 255)


def colors(side=8):
    """A image of random colors."""
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def channels(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def with_alpha(image, alpha=77):
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (colors(), channels(colors())),
        (colors().convert("L"), np.stack([np.asarray(colors().convert("L"))] * 3)),
        (with_alpha(colors()), channels(colors())),
        (with_alpha(colors().convert("L")), channels(colors().convert("L"))),
        (colors().quantize(7), channels(colors().quantize(7))),
        (colors().convert("CMYK"), channels(colors().convert("CMYK"))),
        (colors().convert("1"), 255 * np.stack([np.asarray(colors().convert("1"), dtype=np.uint8)] * 3)),
    ],
    ids=["RGB", "L", "RGBA", "LA", "P", "CMYK", "1"],
)
def test_to_array_keeps_the_colors_of_every_mode(image, expected):
    array = to_array(image, 8)
    assert array.dtype == np.uint8
    assert (array == expected).all()


@pytest.mark.parametrize("kind", [np.uint16, np.int32], ids=["I;16", "I"])
def test_16_bit_gray_is_scaled_and_not_clipped(kind):
    ramp = np.arange(256).reshape(16, 16)
    array = to_array(Image.fromarray((ramp * 257).astype(kind)), 16)
    assert (array == ramp).all()


def test_a_dark_16_bit_image_stays_dark():
    assert to_array(Image.fromarray(np.full((8, 8), 200, dtype=np.uint16)), 8).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (700, 2), (9, 8)])
def test_to_array_takes_any_shape(shape):
    array = to_array(Image.new("RGB", shape, (10, 200, 30)), 12)
    assert array.shape == (3, 12, 12)
    assert (array == np.array([10, 200, 30])[:, None, None]).all()


def test_to_array_crops_the_centre_of_a_wide_image():
    image = Image.new("RGB", (90, 10), "red")
    image.paste("blue", (40, 0, 50, 10))
    assert (to_array(image, 10) == np.array([0, 0, 255])[:, None, None]).all()


def test_an_extremely_wide_image_is_not_blown_up(monkeypatch):
    made = []
    resize = Image.Image.resize

    def spied(image, size, *args, **options):
        made.append(size)
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", spied)
    array = to_array(Image.new("RGB", (20_000, 1), (10, 200, 30)), 24)
    assert (array == np.array([10, 200, 30])[:, None, None]).all()
    assert max(width * height for width, height in made) <= 100 * 24 * 24


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([24, 32, 48]))
@example(11, 55, 48)
@example(298, 149, 32)
def test_to_array_agrees_with_clips_own_preprocessing(width, height, size):
    pil = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    assume(max(width, height) <= 30 * min(width, height))
    image = PHOTO.crop((100, 100, 100 + width, 100 + height))
    geometry = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    processor = pil.CLIPImageProcessorPil(**geometry, do_normalize=False, do_rescale=False)
    theirs = processor(image, return_tensors="np")["pixel_values"][0].astype(int)
    assert np.abs(to_array(image, size) - theirs).max() <= 1


def test_resize_changes_the_side_and_keeps_what_fits():
    pixels = (random_pixels(2, 16) * 256).to(torch.uint8)
    assert torch.equal(resize(pixels, 16), pixels)
    assert resize(pixels, 6).shape == (2, 3, 6, 6)
    flat = torch.full((1, 3, 16, 16), 99, dtype=torch.uint8)
    assert torch.equal(resize(flat, 40), torch.full((1, 3, 40, 40), 99, dtype=torch.uint8))


def crops(pixels, seed, **options):
    return crop_flip(pixels, torch.Generator().manual_seed(seed), **options)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1))
def test_crop_flip_is_a_convex_combination_of_the_pixels(seed, smallest):
    pixels = 0.25 + random_pixels(3, 12, seed) / 2
    out = crops(pixels, seed, smallest=smallest)
    assert out.shape == pixels.shape
    assert torch.equal(out, crops(pixels, seed, smallest=smallest))
    assert (out.amax((2, 3)) <= pixels.amax((2, 3)) + 1e-6).all()
    assert (out.amin((2, 3)) >= pixels.amin((2, 3)) - 1e-6).all()


def test_crop_flip_of_the_whole_side_mirrors_about_half_of_the_images():
    pixels = random_pixels(200, 6)
    out = crops(pixels, 0, smallest=1.0)
    kept, mirrored = ((out - other).abs().amax((1, 2, 3)) < 1e-5 for other in (pixels, pixels.flip(-1)))
    assert (kept ^ mirrored).all()
    assert 60 < kept.sum() < 140


@pytest.mark.parametrize("axis", [2, 3])
def test_crop_flip_moves_up_down_left_and_right(axis):
    ramp = torch.linspace(0, 1, 12).expand(12, 12)
    means = crops((ramp if axis == 3 else ramp.T).expand(100, 3, 12, 12), 0).mean((1, 2, 3))
    assert means.min() < 0.4
    assert means.max() > 0.6


def test_crop_flip_finds_its_places_in_float32_under_a_lower_precision():
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = crop_flip(pixels, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(crop_flip(pixels, torch.Generator().manual_seed(0)), expected)


def test_crop_flip_differs_between_images_and_seeds():
    pixels = random_pixels(1, 12).expand(2, -1, -1, -1)
    assert not torch.equal(*crops(pixels, 1))
    assert not torch.equal(crops(pixels, 1), crops(pixels, 2))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder; `datasets` keeps its cache beside it."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    folder = tmp_path / "set"
    folder.mkdir()
    return folder


def image_folder(folder, split="train"):
    """Two classes, two images each."""
    for name, color in (("cat", "red"), ("dog", "blue")):
        (folder / split / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (20 + number, 30), color).save(folder / split / name / f"{number}.png")


def parquet(folder, **changes):
    """Two images with labels and captions, as a set of the hub looks on disk; `changes` replaces columns."""
    import datasets

    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["cat", "dog"]),
        captions=[datasets.Value("string")],
        note=datasets.Value("string"),
    )
    columns = {
        "image": [colors(9), colors(7)],
        "label": [1, 0],
        "captions": [["a", "b"], ["c"]],
        "note": ["x", "y"],
        **changes,
    }
    (folder / "data").mkdir()
    path = folder / "data" / "test-00000-of-00001.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)


def test_an_image_folder_has_its_subfolders_as_classes(here):
    image_folder(here)
    data = load_data(str(here), "train")
    assert (data.name, data.classes, data.labeled().tolist()) == ("set", ("cat", "dog"), [0, 0, 1, 1])
    assert (all_pixels(data, 8)[:, :, 0, 0] == torch.tensor([[1.0, 0, 0]] * 2 + [[0, 0, 1.0]] * 2)).all()


def place_images(folder, *places):
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / place)


@pytest.mark.parametrize("word", ["train", "bullet train", "test tube", "Val"])
def test_a_class_may_be_called_like_a_split(here, word):
    places = [f"{name}/{word} {i}.png" for name in (word, "bus") for i in range(3)]
    place_images(here, *(f"{split}/{place}" for split in ("train", "test") for place in places))
    for split in ("train", "test"):
        data = load_data(str(here), split)
        assert data.classes == tuple(sorted(("bus", word)))
        assert data.labeled().bincount().tolist() == [3, 3]


@pytest.mark.parametrize("classes", [("beaker", "flask", "test tube"), ("dev", "prod"), ("bus", "train")])
def test_class_folders_alone_are_one_split_for_training(here, classes):
    place_images(here, *(f"{name}/{file}.png" for name in classes for file in ("0", "test rig")))
    data = load_data(str(here), "train")
    assert (data.classes, data.labeled().bincount().tolist()) == (classes, [2] * len(classes))
    with pytest.raises(RvptError, match="no split 'test', its images are one, train: give --split train, or make"):
        load_data(str(here), "test")


def test_a_split_is_found_by_any_of_its_names_and_all_splits_share_their_classes(here):
    place_images(here, "Train/cat/0.png", "Train/owl/0.png", "val/owl/0.png", "val/owl/._0.png", ".x/y/0.png")
    (here / "val" / "cat").mkdir()
    for split in ("val", "validation", "VALID"):
        data = load_data(str(here), split)
        assert (data.classes, data.labeled().tolist()) == (("cat", "owl"), [1])
    place_images(here, "dev/owl/0.png")
    assert len(load_data(str(here), "dev")) == len(load_data(str(here), "train")) - 1
    with pytest.raises(RvptError, match="split 'validation' may be dev or val: give --split dev"):
        load_data(str(here), "validation")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["train/0.png", "test/0.png"], "images lie straight in test/, which is a split: put them in test/CLASS/"),
        (["cat/test/0.png", "dog/train/0.png"], "splits lie in class folders, as cat/test: move it to test/cat"),
        (["test/cat/0.png", "test/birds/owl/0.png"], "birds/owl lies deeper than a class folder: move it to"),
        (["test/cat/0.png", "test/0.png"], "0.png lies beside class folders: move it into one"),
        (["cat/0.png", "birds/owl/0.png"], "birds/owl holds images, and birds is no split's name"),
        (["data/cat/0.png", "data/dog/0.png"], "rename data, give .*/data, or move"),
        (["test/steam/0.png", "bus/0.png"], r"is test/ a split or a class\? Beside it is bus/, no split"),
        (["test/train/0.png", "test/test/0.png"], "test, train are splits, no classes: give .*/test"),
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


def test_a_parquet_set_has_labels_captions_and_its_images(here):
    parquet(here)
    data = load_data(str(here))
    assert data.classes == ("cat", "dog")
    assert data.labeled().tolist() == [1, 0]
    assert [data.captions(0), data.captions(1)] == [["a", "b"], ["c"]]
    assert (data.reader(torch.tensor([1]), 7)[0].numpy() == channels(colors(7))).all()
    assert load_data(str(here), caption_column="note").captions(1) == ["y"]


def test_numbers_are_labels_once_a_file_names_them(here, tmp_path):
    import datasets

    columns = {"image": [colors(9), colors(7)], "id": [5, 6], "label": [2, 0]}
    features = datasets.Features(image=datasets.Image(), id=datasets.Value("int64"), label=datasets.Value("int32"))
    (here / "data").mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(here / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(RvptError, match="set: its labels are numbers: give set@FILE"):
        load_data(str(here)).labeled()
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nowl\neel\n")
    data = load_data(f"{here}@{names}")
    assert [data.classes[label] for label in data.labeled()] == ["owl", "cat"]
    names.write_text("cat\ndog\n")
    with pytest.raises(RvptError, match="has 2 names, set 3 classes"):
        load_data(f"{here}@{names}")


def two_label_columns(folder):
    import datasets

    style = datasets.ClassLabel(names=["photo", "art"])
    label = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(image=datasets.Image(), style=style, label=label)
    columns = {"image": [colors(9), None], "style": [0, 0], "label": [1, 0]}
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "test-00000-of-00001.parquet")


def test_of_several_columns_of_classes_the_one_called_label_counts(here):
    two_label_columns(here)
    assert load_data(str(here)).classes == ("cat", "dog")


def test_a_missing_image_is_named(here):
    two_label_columns(here)
    with pytest.raises(RvptError, match=r"set: image 1 .* cannot be read"):
        all_pixels(load_data(str(here)), 8)


def test_names_behind_a_mark_that_editors_leave_and_in_a_folder_with_an_at(here, tmp_path):
    image_folder(here)
    at = here.rename(tmp_path / "a@b")
    (tmp_path / "names.txt").write_bytes("\ufeffred\nblue\n".encode())
    assert load_data(str(at), "train").classes == ("cat", "dog")
    assert load_data(f"{at}@{tmp_path / 'names.txt'}", "train").classes == ("red", "blue")


def test_one_of_several_sets_in_a_folder(here):
    for name in ("plain", "fancy"):
        two_label_columns(here / name)
    configs = "".join(f"- config_name: {n}\n  data_files: {n}/data/*.parquet\n" for n in ("plain", "fancy"))
    (here / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(RvptError, match=r"is several sets \((plain, fancy|fancy, plain)\): give one as"):
        load_data(str(here), "train")
    assert load_data(f"{here}:fancy", "train").classes == ("cat", "dog")


@pytest.mark.parametrize("label", [-1, None])
def test_a_hidden_label_is_said(here, label):
    parquet(here, label=[0, label])
    with pytest.raises(RvptError, match=f"image 1 has no label .*{label}.*--split"):
        load_data(str(here))


@pytest.mark.parametrize("captions", [None, [], [None]])
def test_a_image_without_a_caption_is_said(here, captions):
    parquet(here, captions=[["a"], captions])
    data = load_data(str(here))
    assert data.captions(0) == ["a"]
    with pytest.raises(RvptError, match="image 1 has no caption in column 'captions'"):
        data.captions(1)


@pytest.mark.parametrize("source", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_missing_folder_is_said(source):
    with pytest.raises(RvptError, match=f"{source} is not a folder: give a data set's folder, a hub id, or"):
        load_data(source)


def test_an_empty_folder_is_said(here):
    with pytest.raises(RvptError, match=r"set is empty: it needs Parquet files, or one subfolder"):
        load_data(str(here))


def test_a_folder_without_images_is_said(here):
    (here / "notes.txt").write_text("no images\n")
    with pytest.raises(RvptError, match="no image column"):
        load_data(str(here), "train")


def test_a_split_that_is_not_there_is_said_with_those_that_are(here):
    image_folder(here)
    with pytest.raises(RvptError, match=r"set: .*train.*--split"):
        load_data(str(here), "validation")


def test_a_caption_column_that_is_not_there_is_said(here):
    parquet(here)
    with pytest.raises(RvptError, match="no column 'words': it has image, label, captions, note"):
        load_data(str(here), caption_column="words")


def test_a_truncated_jpeg_is_named(here):
    image_folder(here)
    whole = here / "train" / "cat" / "1.jpg"
    colors(64).save(whole)
    whole.write_bytes(whole.read_bytes()[:-600])
    (here / "train" / "cat" / "1.png").unlink()
    data = load_data(str(here), "train")
    assert data.pixels(torch.tensor([0, 2]), 8).shape == (2, 3, 8, 8)
    with pytest.raises(RvptError, match=r"1\.jpg.*: fix or remove it"):
        all_pixels(data)


def test_scenes_come_in_splits_of_any_length():
    data = load_data("scenes:6", "test")
    assert len(data) == 6
    assert torch.equal(all_pixels(data, 48), all_pixels(load_data("scenes:6", "test"), 48))
    assert not torch.equal(all_pixels(data, 48), all_pixels(load_data("scenes:6", "train"), 48))
    shapes = [data.classes[label] for label in data.labeled().tolist()]
    assert all(shape in text for index, shape in enumerate(shapes) for text in data.captions(index))


@pytest.mark.parametrize(
    ("source", "split", "words"),
    [
        ("scenes", "validation", "no split 'validation': it has pretrain, train, test"),
        ("scenes:many", "test", "after the colon goes a number"),
        ("scenes:0", "test", "after the colon goes a number"),
    ],
)
def test_scenes_that_cannot_be_had_are_said(source, split, words):
    with pytest.raises(RvptError, match=words):
        load_data(source, split)


def test_a_photograph_on_its_side_is_turned():
    lying = Image.new("RGB", (8, 8))
    lying.paste((255, 0, 0), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    lying.save(buffer, "JPEG", exif=exif, quality=100)
    red = to_array(Image.open(buffer), 8)[0]
    assert red[:3].max() < 60
    assert red[5:].min() > 200


def test_a_float_image_is_scaled_by_one():
    gray = to_array(Image.fromarray(np.full((8, 8), 0.6, dtype=np.float32), "F"), 8)
    assert (gray == 153).all()


def test_classes_get_their_names_from_a_file(tmp_path):
    names = [f"shape {index}" for index in range(24)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n\n")
    named, own = load_data(f"scenes:5@{tmp_path / 'names.txt'}"), load_data("scenes:5")
    assert (named.classes, named.name) == (tuple(names), "scenes:5")
    assert torch.equal(named.labeled(), own.labeled())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one\ntwo\n", "has 2 names, scenes:5 24 classes"),
        ("crane\n" * 24, "two classes are called 'crane'"),
        (None, "one a line"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, text, words):
    if text:
        (tmp_path / "names.txt").write_text(text)
    with pytest.raises(RvptError, match=words):
        load_data(f"scenes:5@{tmp_path / 'names.txt'}")

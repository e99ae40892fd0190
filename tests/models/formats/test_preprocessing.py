"""Preprocessing: what configurations, old and new, ask for is followed, or refused by the name of the setting."""

import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from helpers import random_image
from rvpt.data.dataset import Dataset
from rvpt.data.preprocess import OPENAI_MEAN, OPENAI_STD, ImageSize, Resizing, to_array, to_pixels
from rvpt.errors import RvptError
from rvpt.models.formats.preprocessing import Preprocessing, from_open_clip, from_transformers, refuse_other_size
from rvpt.models.formats.write_preprocessing import as_open_clip, as_transformers

OLD = {
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3, "size": 224,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
}  # fmt: skip
NEW = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.4, 0.3], "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.2, 0.3, 0.4], "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224},
}  # fmt: skip


@pytest.mark.parametrize("facts", [OLD, NEW, {"image_processor": NEW, "processor_class": "CLIPProcessor"}])
def test_configurations_of_transformers_are_followed(facts):
    assert from_transformers(facts, "x") == Preprocessing(224, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def test_what_is_not_stated_is_clips():
    found = from_transformers({}, "x")
    assert found == Preprocessing(None, OPENAI_MEAN, OPENAI_STD)
    assert from_open_clip({}, "x") == replace(found, resizing=Resizing(rounding="even"))


def test_images_that_are_not_normalized_are_followed():
    assert from_transformers({**NEW, "do_normalize": False}, "x").std == (1.0, 1.0, 1.0)


# Squares, in other ways than CLIP's

SIDE = {"height": 24, "width": 24}
PROCESSORS = {
    "clip": (CLIPImageProcessorPil, {"size": {"shortest_edge": 24}, "crop_size": SIDE, "image_mean": [0.5, 0.4, 0.3]}),
    "clip, bilinear": (CLIPImageProcessorPil, {"size": {"shortest_edge": 24}, "crop_size": SIDE, "resample": 2}),
    "clip, lanczos": (CLIPImageProcessorPil, {"size": {"shortest_edge": 24}, "crop_size": SIDE, "resample": 1}),
    "clip, nearest": (CLIPImageProcessorPil, {"size": {"shortest_edge": 24}, "crop_size": SIDE, "resample": 0}),
    "resized to more": (CLIPImageProcessorPil, {"size": {"shortest_edge": 31}, "crop_size": SIDE}),
    "squashed and cropped": (CLIPImageProcessorPil, {"size": {"height": 31, "width": 31}, "crop_size": SIDE}),
    "squashed": (CLIPImageProcessorPil, {"size": SIDE, "do_center_crop": False}),
    "siglip": (SiglipImageProcessorPil, {"size": SIDE}),
    "siglip, bilinear": (SiglipImageProcessorPil, {"size": SIDE, "resample": 2}),
    "another range": (SiglipImageProcessorPil, {"size": SIDE, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3}),
    "as they are": (SiglipImageProcessorPil, {"size": SIDE, "do_rescale": False, "do_normalize": False}),
}


def pixel_values(image, found, side=24):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.mean, found.std))
    return (to_pixels(image, ImageSize(side, found.resizing)) - mean) / std


@pytest.mark.parametrize(("width", "height"), [(24, 24), (50, 70), (71, 50), (7, 5), (90, 31), (31, 97), (200, 9)])
@pytest.mark.parametrize("name", PROCESSORS)
def test_it_is_what_transformers_computes(name, width, height):
    kind, facts = PROCESSORS[name]
    image = random_image(width, height)
    theirs = kind(**facts)(image, return_tensors="pt")["pixel_values"]
    found = from_transformers({**facts, "image_processor_type": kind.__name__}, "x")
    assert found.size == 24
    ours = pixel_values(image, found)
    assert (ours - theirs).abs().max() < 1.01 / 255 / min(found.std)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_is_written_for_transformers_is_the_same(name):
    kind, facts = PROCESSORS[name]
    found = from_transformers({**facts, "image_processor_type": kind.__name__}, "x")
    written = as_transformers(found, "CLIPImageProcessor")
    assert from_transformers(written, "x") == found
    image, processor = random_image(90, 31), CLIPImageProcessorPil(**written)
    assert (pixel_values(image, found) - processor(image, return_tensors="pt")["pixel_values"]).abs().max() < 1e-5


def test_the_longer_side_is_written_so_that_transformers_refuses_it():
    found = from_open_clip({"resize_mode": "longest", "fill_color": 3, "size": 24}, "x")
    written = as_transformers(found, "CLIPImageProcessor")
    assert from_transformers(written, "x").resizing == replace(found.resizing, rounding="down")
    with pytest.raises(ValueError, match="Size must contain"):
        CLIPImageProcessorPil(**written)(random_image(9, 30), return_tensors="pt")


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
def test_what_is_written_for_open_clip_is_the_same(mode, interpolation):
    facts = {"resize_mode": mode, "interpolation": interpolation, "size": 24, "mean": [0.5] * 3, "std": [0.25] * 3}
    found = from_open_clip(facts, "x")
    assert from_open_clip(as_open_clip(found), "x") == found
    if mode != "longest":
        again = from_transformers(as_transformers(found, "CLIPImageProcessor"), "x")
        assert (pixel_values(random_image(90, 31), again) == pixel_values(random_image(90, 31), found)).all()


def test_the_longer_side_is_resized_and_the_rest_filled():
    image = Image.new("RGB", (40, 20), "red")
    array = to_array(image, ImageSize(20, Resizing("longest", fill=7)))
    assert (array[:, 5:15] == np.array([255, 0, 0])[:, None, None]).all()
    assert (array[:, :5] == 7).all()
    assert (array[:, 15:] == 7).all()


def test_half_a_pixel_at_the_border_is_rounded_as_the_library_does():
    image = random_image(27, 24)  # 3 columns too many: 1 or 2 of them on the left
    pixels = np.asarray(image).transpose(2, 0, 1)
    assert (to_array(image, 24) == pixels[:, :, 1:25]).all()
    assert (to_array(image, ImageSize(24, Resizing(rounding="even"))) == pixels[:, :, 2:26]).all()


def test_a_cached_set_is_read_again_for_another_preprocessing():
    images = [random_image(40, 20, seed) for seed in range(2)]
    data = Dataset.from_images(images)
    squash, rows = ImageSize(16, Resizing("squash")), torch.arange(2)
    cached = data.cached(squash)
    assert torch.equal(cached.pixels(rows, squash), data.pixels(rows, squash))
    assert torch.equal(cached.pixels(rows, 16), data.pixels(rows, 16))
    assert not torch.equal(data.pixels(rows, squash), data.pixels(rows, 16))


def test_the_synthetic_dataset_follows_another_filter_and_crop():
    from rvpt.data.load import load_data

    data, rows = load_data("scenes:4", "test"), torch.arange(2)
    plain, other = data.pixels(rows, 40), data.pixels(rows, ImageSize(40, Resizing(resized=48)))
    assert not torch.equal(plain, other)
    assert torch.equal(data.pixels(rows, ImageSize(40, Resizing("squash", rounding="even"))), plain)


def test_a_size_is_a_number_that_keeps_its_preprocessing():
    size = ImageSize(24, Resizing("squash"))
    assert (size, json.dumps(size), torch.zeros(size, size).shape) == (24, "24", (24, 24))
    for copied in (copy.deepcopy(size), pickle.loads(pickle.dumps(size))):
        assert copied.resizing == size.resizing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resample": 99}, "resample is 99"),
        ({"resample": "bicubic"}, "resample is bicubic"),
        ({"do_resize": False}, "do_resize is false"),
        ({"do_center_crop": False}, "do_center_crop is false, so images would not be squares"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor is 1/255"),
        ({"rescale_factor": float("nan")}, "rescale_factor is nan"),
        ({"size": {"height": 224, "width": 225}}, "size is {'height': 224, 'width': 225}"),
        ({"size": {"longest_edge": 224}}, "size is {'longest_edge': 224}"),
        ({"size": {"shortest_edge": 224, "longest_edge": 500}}, "size is"),
        ({"size": -1}, "size is -1"),
        ({"crop_size": 256}, "crop_size is 256, more than size, 224"),
        ({"crop_size": {"height": 224, "width": 225}}, "is not a square"),
        ({"crop_size": [224, 225]}, "is not a square"),
        ({"image_mean": [0.5]}, "image_mean and image_std must be three numbers"),
        ({"image_std": [1, 1, float("nan")]}, "image_mean and image_std must be three numbers"),
        ({"image_std": "0.5"}, "image_mean and image_std must be three numbers"),
        ({"image_processor_type": "EfficientNetImageProcessor"}, "image_processor_type is EfficientNetImageProcessor"),
        ({"image_processor_type": ["CLIPImageProcessor"]}, "image_processor_type is ['CLIPImageProcessor']"),
    ],
    ids=str,
)
def test_other_ways_are_refused_by_the_name_of_the_setting(change, words):
    with pytest.raises(RvptError) as refusal:
        from_transformers({**NEW, **change}, "model: preprocessor_config.json")
    assert str(refusal.value).startswith("model: preprocessor_config.json: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"resize_mode": "stretch"}, {"interpolation": "random"}, {"interpolation": ["bicubic"]}, {"mode": "L"},
        {"fill_color": 300}, {"fill_color": "black"}, {"size": [224, 225]}, {"size": "big"}, {"mean": 3},
    ],
    ids=str,
)  # fmt: skip
def test_other_ways_of_open_clip_are_refused_by_the_name_of_the_setting(change):
    with pytest.raises(RvptError, match=f"^x: {next(iter(change))}"):
        from_open_clip({"resize_mode": "longest", **change}, "x")


@pytest.mark.parametrize("size", [224, [224, 224], {"shortest_edge": 224}, {"height": 224, "width": 224}])
def test_sizes_of_every_form_are_compared_with_the_models(size):
    found = from_open_clip({"size": size}, "x")
    refuse_other_size(found, 224, "x")
    with pytest.raises(RvptError, match="images of side 224, its model has 336"):
        refuse_other_size(found, 336, "x")

"""Preprocessing: what configurations, old and new, ask for is followed, or refused by the name of the setting."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from rvpt.data.preprocess import OPENAI_MEAN, OPENAI_STD, to_pixels
from rvpt.errors import RvptError
from rvpt.models.formats.preprocessing import Preprocessing, from_open_clip, from_transformers, refuse_other_size

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
    assert from_transformers({}, "x") == from_open_clip({}, "x") == Preprocessing(None, OPENAI_MEAN, OPENAI_STD)


def test_images_that_are_not_normalized_are_followed():
    assert from_transformers({**NEW, "do_normalize": False}, "x").std == (1.0, 1.0, 1.0)


def test_it_is_what_transformers_computes():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    sized = {**NEW, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    theirs = CLIPImageProcessorPil(**sized)(image, return_tensors="pt")["pixel_values"]
    found = from_transformers(sized, "x")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.mean, found.std))
    ours = (to_pixels(image, found.size) - mean) / std
    assert (ours - theirs).abs().max() < 2 / 255 / min(found.std)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resample": 2}, "resample is bilinear"),
        ({"resample": 99}, "resample is 99"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_center_crop": False}, "do_center_crop is False"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"rescale_factor": 0.5}, "rescale_factor is 0.5"),
        ({"size": {"height": 224, "width": 224}}, "size is {'height': 224, 'width': 224}"),
        ({"size": {"longest_edge": 224}}, "size is {'longest_edge': 224}"),
        ({"size": {"shortest_edge": 256}}, "crop_size is 224"),
        ({"image_mean": [0.5]}, "image_mean and image_std must be three numbers"),
        ({"image_std": [1, 1, float("nan")]}, "image_mean and image_std must be three numbers"),
        ({"image_std": None}, "image_mean and image_std must be three numbers"),
    ],
    ids=str,
)
def test_other_ways_are_refused_by_the_name_of_the_setting(change, words):
    with pytest.raises(RvptError) as refusal:
        from_transformers({**NEW, **change}, "model: preprocessor_config.json")
    assert str(refusal.value).startswith("model: preprocessor_config.json: ")
    assert words in str(refusal.value)


@pytest.mark.parametrize("size", [224, [224, 224], {"shortest_edge": 224}, {"height": 224, "width": 224}])
def test_sizes_of_every_form_are_compared_with_the_models(size):
    found = from_open_clip({"size": size}, "x")
    refuse_other_size(found, 224, "x")
    with pytest.raises(RvptError, match="images of side 224, its model has 336"):
        refuse_other_size(found, 336, "x")

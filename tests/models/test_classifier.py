"""Using a model: probabilities of classes for images of any size."""

import copy

import pytest
import torch
from PIL import Image

import rvpt
from helpers import random_pixels
from rvpt.defenses import DEFENSES, Cleaned, clean
from rvpt.prompts import RepulsivePrompts

CLASSES = ["fox", "owl", "cat"]


def image(pixels):
    return Image.fromarray((pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


@pytest.mark.parametrize("prompted", [False, True])
def test_probabilities_are_those_of_the_cosines(clip, prompted):
    model = Cleaned(clip, RepulsivePrompts(range(1, 4), 3, clip.width, std=1.0)) if prompted else clip
    pixels = (random_pixels(2, 48) * 255).round() / 255
    found = rvpt.classify(model, [image(each) for each in pixels], CLASSES)
    with torch.no_grad():
        for row, picture in zip(found, pixels, strict=True):
            cosines = [model.encode_image(picture[None])[0] @ model.class_features([name])[0] for name in CLASSES]
            weights = [(model.logit_scale * cosine).exp() for cosine in cosines]
            assert row.tolist() == pytest.approx([float(w / sum(weights)) for w in weights], rel=1e-4)


@pytest.mark.parametrize("name", ["probe", "rvpt"])
def test_a_model_of_another_type_gives_float32_whatever_it_compares_with(clip, scenes, name):
    cleaned = clean(clip, scenes, DEFENSES[name].Spec.build(epochs=1, lr=1e-3))
    images = [image(random_pixels(1, 48)[0])]
    found = rvpt.classify(copy.deepcopy(cleaned).double(), images, scenes.classes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, rvpt.classify(cleaned, images, scenes.classes), atol=1e-5, rtol=0)


def test_pictures_of_any_size_and_mode_are_taken(clip):
    images = [Image.new(mode, size) for mode, size in (("L", (7, 90)), ("RGBA", (300, 20)), ("CMYK", (48, 48)))]
    found = rvpt.classify(clip, images, CLASSES)
    assert found.shape == (3, 3)
    assert found.sum(1).tolist() == pytest.approx([1, 1, 1])

"""Zero-shot classification: probabilities of classes for images of any size, in batches or one by one."""

import copy

import pytest
import torch
from PIL import Image

import rvpt
from helpers import random_image, random_pixels
from rvpt import Classifier, Cleaned, RepulsivePrompts
from rvpt.data.preprocess import to_array
from rvpt.errors import RvptError
from rvpt.models.head import Head

CLASSES = ["red_fox", "owl", "cat"]
IMAGES = [random_image(48, 48, 1), random_image(70, 50, 2), random_image(48, 99, 3), random_image(20, 20, 4)]


def with_prompts(clip):
    return Cleaned(clip, RepulsivePrompts(range(1, 4), 3, clip.width, std=1.0).requires_grad_(False))


def with_head(clip, classes=("owl", "red fox", "cat")):
    rows = torch.randn(len(classes), 25, generator=torch.Generator().manual_seed(0))
    return Cleaned(clip, head=Head(tuple(classes), rows))


MODELS = {"clip": lambda clip: clip, "prompts": with_prompts, "head": with_head}


@pytest.fixture(params=MODELS)
def model(request, clip):
    return MODELS[request.param](clip)


@torch.no_grad()
def naive(model, image, classes, template="a photo of a {}."):
    """exp(tau cos) of each class over their sum, image by image and class by class."""
    pixels = torch.from_numpy(to_array(image, 48).copy())[None] / 255
    feature = model.encode_image(pixels)[0]
    weights = [(model.logit_scale * feature @ model.class_features([name], template)[0]).exp() for name in classes]
    return [float(weight / sum(weights)) for weight in weights]


def test_probabilities_are_those_of_the_cosines(model):
    found = Classifier(model, CLASSES)(IMAGES)
    assert found.shape == (4, 3)
    assert found.dtype == torch.float32
    for row, image in zip(found, IMAGES, strict=True):
        assert row.tolist() == pytest.approx(naive(model, image, CLASSES), rel=1e-4)


def test_a_template_is_the_caption_of_a_class(clip):
    (found,) = Classifier(clip, CLASSES, template="one {}!")(IMAGES[:1])
    assert found.tolist() == pytest.approx(naive(clip, IMAGES[0], CLASSES, "one {}!"), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_of_any_size_give_the_same(model, batch_size, monkeypatch):
    seen = []
    encode = type(model).encode_image

    def counted(self, pixels, *rest):
        seen.append(len(pixels))
        return encode(self, pixels, *rest)

    expected = Classifier(model, CLASSES)(IMAGES)
    monkeypatch.setattr(type(model), "encode_image", counted)
    found = Classifier(model, CLASSES, batch_size=batch_size)(IMAGES)
    torch.testing.assert_close(found, expected)
    assert max(seen) <= batch_size


def test_one_image_is_a_batch_of_one(clip):
    classifier = Classifier(clip, CLASSES)
    (tensor,) = random_pixels(1, 30)
    assert torch.equal(classifier(IMAGES[0]), classifier(IMAGES[:1]))
    assert torch.equal(classifier(tensor), classifier([tensor]))
    assert torch.equal(classifier(tensor), classifier(tensor[None]))
    assert classifier(tuple(IMAGES[:2])).shape == (2, 3)
    assert classifier([]).shape == (0, 3)


def test_images_of_any_mode_are_accepted(clip):
    images = [Image.new(mode, size) for mode, size in (("L", (7, 90)), ("RGBA", (300, 20)), ("CMYK", (48, 48)))]
    found = Classifier(clip, CLASSES)(images)
    assert found.sum(1).tolist() == pytest.approx([1, 1, 1])


def test_the_prediction_is_the_most_probable_class(model):
    classifier = Classifier(model, CLASSES)
    expected = [CLASSES[row.index(max(row))] for row in classifier(IMAGES).tolist()]
    assert classifier.predict(IMAGES) == expected
    assert classifier.predict(IMAGES[1]) == expected[1:2]


def test_texts_are_encoded_once(clip, monkeypatch):
    classifier = Classifier(clip, CLASSES)
    monkeypatch.setattr(type(clip), "encode_text", lambda *_: pytest.fail("encoded again"))
    assert classifier(IMAGES).shape == (4, 3)


def test_images_that_are_pixels_already_are_not_resized(model):
    pixels = (random_pixels(3, 48) * 255).round() / 255
    classifier = Classifier(model, CLASSES)
    torch.testing.assert_close(classifier.probabilities(pixels), classifier(pixels))


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_another_dtype_gives_float32(clip, kind):
    model = MODELS[kind](copy.deepcopy(clip))
    expected = Classifier(model, CLASSES)(IMAGES)
    found = Classifier(model.double(), CLASSES)(IMAGES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", MODELS)
def test_cosines_of_a_model_in_16_bits_are_not_rounded(clip, kind):
    model, pixels = MODELS[kind](copy.deepcopy(clip)).bfloat16(), random_pixels(4, 48)
    features, rows = model.encode_image(pixels).float(), model.class_features(CLASSES).float()
    expected = (model.logit_scale.float() * features @ rows.T).softmax(1)
    torch.testing.assert_close(Classifier(model, CLASSES).probabilities(pixels), expected)


def test_a_model_with_a_head_knows_its_own_classes_in_any_order(clip):
    model = with_head(clip)
    one, other = Classifier(model, CLASSES)(IMAGES), Classifier(model, CLASSES[::-1])(IMAGES)
    torch.testing.assert_close(one, other.flip(1))
    with pytest.raises(RvptError, match="class 'dog': this model has its own classifier, which was not trained on it"):
        Classifier(model, ["owl", "dog"])


def test_the_embedded_model_recognizes_shapes():
    data = rvpt.load_data("scenes:40", "test")
    classifier = Classifier(rvpt.load("scenes-clip"), data.classes)
    named = classifier.predict(data.pixels(torch.arange(40), 48))
    assert sum(name == data.classes[label] for name, label in zip(named, data.labeled(), strict=True)) >= 36


@pytest.mark.parametrize(
    ("classes", "cause"),
    [
        ("cat", "list of class names"),
        ([0, 1], "list of class names"),
        ([], "no names"),
        (["cat", "owl", " Cat_"], "classes 'cat' and ' Cat_' have the same name: rename one"),
    ],
)
def test_classes_are_a_list_of_names_that_differ_to_clip(clip, classes, cause):
    with pytest.raises(RvptError, match=cause):
        Classifier(clip, classes)

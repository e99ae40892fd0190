"""Images of every mode and shape become what CLIP's own preprocessing makes of them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from matplotlib import get_data_path
from PIL import Image

from helpers import random_image, random_pixels
from rvpt.data.preprocess import resize, to_array, to_pixels
from rvpt.errors import RvptError

PHOTO = Image.open(Path(get_data_path()) / "sample_data/grace_hopper.jpg").convert("RGB")
COLORS = random_image(8, 8)


def channels(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def with_alpha(image, alpha=77):
    image = image.copy()
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (COLORS, channels(COLORS)),
        (COLORS.convert("L"), np.stack([np.asarray(COLORS.convert("L"))] * 3)),
        (with_alpha(COLORS), channels(COLORS)),
        (with_alpha(COLORS.convert("L")), channels(COLORS.convert("L"))),
        (COLORS.quantize(7), channels(COLORS.quantize(7))),
        (COLORS.convert("CMYK"), channels(COLORS.convert("CMYK"))),
        (COLORS.convert("1"), 255 * np.stack([np.asarray(COLORS.convert("1"), dtype=np.uint8)] * 3)),
    ],
    ids=["RGB", "L", "RGBA", "LA", "P", "CMYK", "1"],
)
def test_the_colors_of_every_mode_are_kept(image, expected):
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


def test_a_float_image_is_scaled_by_one():
    gray = to_array(Image.fromarray(np.full((8, 8), 0.6, dtype=np.float32), "F"), 8)
    assert (gray == 153).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (700, 2), (9, 8)])
def test_any_shape_becomes_square(shape):
    array = to_array(Image.new("RGB", shape, (10, 200, 30)), 12)
    assert array.shape == (3, 12, 12)
    assert (array == np.array([10, 200, 30])[:, None, None]).all()


def test_the_center_of_a_wide_image_is_cropped():
    image = Image.new("RGB", (90, 10), "red")
    image.paste("blue", (40, 0, 50, 10))
    assert (to_array(image, 10) == np.array([0, 0, 255])[:, None, None]).all()


def test_an_extremely_wide_image_is_not_enlarged_as_a_whole(monkeypatch):
    made = []
    original = Image.Image.resize

    def spied(image, size, *args, **options):
        made.append(size)
        return original(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", spied)
    array = to_array(Image.new("RGB", (20_000, 1), (10, 200, 30)), 24)
    assert (array == np.array([10, 200, 30])[:, None, None]).all()
    assert max(width * height for width, height in made) <= 100 * 24 * 24


def test_a_photograph_that_was_taken_upside_down_is_turned():
    lying = Image.new("RGB", (8, 8))
    lying.paste((255, 0, 0), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    lying.save(buffer, "JPEG", exif=exif, quality=100)
    red = to_array(Image.open(buffer), 8)[0]
    assert red[:3].max() < 60
    assert red[5:].min() > 200


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([24, 32, 48]))
@example(11, 55, 48)
@example(298, 149, 32)
def test_it_agrees_with_clips_own_preprocessing(width, height, size):
    pil = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    assume(max(width, height) <= 30 * min(width, height))
    image = PHOTO.crop((100, 100, 100 + width, 100 + height))
    geometry = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    processor = pil.CLIPImageProcessorPil(**geometry, do_normalize=False, do_rescale=False)
    theirs = processor(image, return_tensors="np")["pixel_values"][0].astype(int)
    assert np.abs(to_array(image, size) - theirs).max() <= 1


def test_whole_numbers_of_more_than_8_bits_that_fit_into_8_are_not_scaled():
    for kind in (np.int32, np.float32):
        assert (to_array(Image.fromarray(np.full((8, 8), 200, dtype=kind)), 8) == 200).all()


def test_a_smaller_side_is_what_pillow_computes():
    pixels = (random_pixels(2, 24) * 256).to(torch.uint8)
    images = [Image.fromarray(each.permute(1, 2, 0).numpy()).resize((8, 8), Image.BICUBIC) for each in pixels]
    expected = torch.from_numpy(np.stack([channels(image) for image in images]).astype(int))
    assert (resize(pixels, 8).int() - expected).abs().max() <= 1


def test_resize_changes_the_side_and_keeps_what_fits():
    pixels = (random_pixels(2, 16) * 256).to(torch.uint8)
    assert torch.equal(resize(pixels, 16), pixels)
    assert resize(pixels, 6).shape == (2, 3, 6, 6)
    flat = torch.full((1, 3, 16, 16), 99, dtype=torch.uint8)
    assert torch.equal(resize(flat, 40), torch.full((1, 3, 40, 40), 99, dtype=torch.uint8))


# What Python programs have: one image or several, of PIL or torch


def test_one_image_is_a_batch_of_one():
    image, (tensor,) = random_image(20, 30), (random_pixels(1, 9) * 256).to(torch.uint8)
    assert torch.equal(to_pixels(image, 16), to_pixels([image], 16))
    assert torch.equal(to_pixels(tensor, 16), to_pixels(tensor[None], 16))
    assert to_pixels(image, 16).shape == (1, 3, 16, 16)
    assert to_pixels([], 16).shape == (0, 3, 16, 16)


def test_tensors_and_images_of_the_same_colors_become_the_same():
    image = random_image(24, 16)
    whole = torch.from_numpy(channels(image).copy())
    expected = to_pixels(image, 16)
    assert expected.dtype == torch.float32
    assert torch.equal(to_pixels([whole, whole / 255, (whole / 255).double()], 16), expected.expand(3, -1, -1, -1))
    assert torch.equal(expected[0] * 255, torch.from_numpy(to_array(image, 16).copy()).float())


@pytest.mark.parametrize("wrong", ["cat.png", [torch.zeros(1, 8, 8)], torch.zeros(2, 8, 8, 3), [None], [[1]]])
def test_what_is_not_an_image_is_refused(wrong):
    with pytest.raises(
        RvptError, match=r"is not an image(: give PIL images, files, tensors \(3, H, W\) or| that can be read)"
    ):
        to_pixels(wrong, 8)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.float64], ids=lambda kind: kind.__name__)
def test_arrays_of_every_type_become_what_the_image_becomes(kind):
    image = random_image(12, 9)
    values = np.asarray(image).astype(kind) / (255 if np.issubdtype(kind, np.floating) else 1)
    expected = to_pixels(image, 8)
    assert torch.equal(to_pixels(values.astype(kind), 8), expected)
    assert torch.equal(to_pixels([values.astype(kind).transpose(2, 0, 1)], 8), expected)


def test_floats_are_rounded_to_the_nearest_color():
    assert (to_pixels(np.full((8, 8, 3), 0.999), 8) == 1).all()


def test_gray_arrays_and_those_with_alpha():
    image = random_image(8, 8)
    gray, alpha = np.asarray(image.convert("L")), np.asarray(with_alpha(image))
    assert torch.equal(to_pixels([gray, gray[:, :, None], alpha], 8), to_pixels([image.convert("L")] * 2 + [image], 8))
    assert torch.equal(to_pixels(gray > 99, 8), to_pixels(Image.fromarray(gray > 99), 8))


@pytest.mark.parametrize(
    "values",
    [np.full((8, 8, 3), 200.0), np.full((8, 8, 3), -0.5), np.full((8, 8), 256, dtype=np.uint16), torch.randn(3, 8, 8)],
    ids=["floats to 255", "normalized", "16 bits", "normalized tensor"],
)
def test_values_that_would_be_clipped_are_refused(values):
    with pytest.raises(
        RvptError, match=r"pixel values from .*: give floats from 0 to 1, before normalization, or whole"
    ):
        to_pixels(values, 8)


def test_files_are_images_too(tmp_path):
    random_image(9, 9).save(tmp_path / "a.png")
    assert torch.equal(
        to_pixels([tmp_path / "a.png", str(tmp_path / "a.png")], 8), to_pixels([random_image(9, 9)] * 2, 8)
    )
    assert torch.equal(to_pixels(tmp_path / "a.png", 8), to_pixels(random_image(9, 9), 8))


def test_a_file_of_too_many_pixels_is_refused_by_its_name(tmp_path, monkeypatch):
    COLORS.save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # Pillow refuses twice as many
    with pytest.raises(RvptError, match=r"huge\.png is not an image that can be read"):
        to_pixels(tmp_path / "huge.png", 8)


def test_damaged_exif_data_do_not_cost_the_image():
    buffer = io.BytesIO()
    COLORS.save(buffer, "PNG")
    image = Image.open(io.BytesIO(buffer.getvalue()))
    image.info["exif"] = b"Exif\x00\x00not a TIFF header"
    assert (to_array(image, 8) == channels(COLORS)).all()

"""Distillation: the loss against its formula, and a plain CLIP that comes out."""

import math

import pytest
import torch
from transformers import CLIPModel

import rvpt
from exported import prompts_for
from helpers import memory_data, random_clip, random_pixels
from rvpt.artifacts import read_manifest
from rvpt.errors import RvptError
from rvpt.exports.distilled import DISTILLED, Distillation, DistillSpec, distill, distillation, mix
from rvpt.exports.save import export
from rvpt.models.cleaned import Cleaned

CLASSES = ("fox", "owl")


@pytest.fixture
def data():
    return memory_data(8, labels=[0, 1] * 4, classes=CLASSES)


@pytest.fixture
def model(clip):
    return Cleaned(clip, prompts_for(clip))


def test_the_distance_is_one_minus_the_mean_cosine():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(3, 4, 5, generator=generator), torch.randn(3, 4, 5, generator=generator)
    cosines = []
    for i in range(3):
        for j in range(4):
            a, b = one[i, j].tolist(), other[i, j].tolist()
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            cosines.append(dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b)))
    assert distillation(one, other).item() == pytest.approx(1 - sum(cosines) / 12, abs=1e-6)
    assert distillation(one, 3 * one).item() == pytest.approx(0, abs=1e-6)
    assert distillation(one, -one).item() == pytest.approx(2, abs=1e-6)


def test_a_mixture_is_between_an_image_and_another():
    pixels = random_pixels(6, 8)
    mixed = mix(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(mixed, mix(pixels, torch.Generator().manual_seed(0)))
    for image, own in zip(mixed, pixels, strict=True):
        fits = []
        for other in pixels:
            towards = (own - other).flatten()
            share = ((image - other).flatten() @ towards / towards.square().sum().clamp(min=1e-9)).item()
            fits.append(
                torch.allclose(image, share * own + (1 - share) * other, atol=1e-5) and -1e-5 < share < 1 + 1e-5
            )
        assert any(fits)
    assert ((mixed - pixels).abs() > 0.01).flatten(1).any(1).sum() > 3


def test_the_loss_is_that_of_features_and_of_rows_after_the_prompted_blocks(model, data, monkeypatch):
    shown, cls_rows = [], model.cls_rows
    monkeypatch.setattr(model, "cls_rows", lambda pixels: shown.append(pixels) or cls_rows(pixels))
    task = Distillation(model, data, DistillSpec(rows=0.5))
    indices = torch.arange(4)
    values = task(indices, torch.Generator().manual_seed(3), 0.0)
    pixels = data.pixels(indices, 48)
    both = torch.cat([pixels, mix(pixels, torch.Generator().manual_seed(3))])
    assert torch.equal(shown[0], both)
    features = (1 - (model.clip.encode_image(both) * model.encode_image(both)).sum(1)).mean()
    ours, taught = model.clip.cls_rows(both)[:, 1:], model.cls_rows(both)[:, 1:]
    rows = (1 - torch.nn.functional.cosine_similarity(ours, taught, dim=-1)).mean()
    torch.testing.assert_close(values["features"], features)
    torch.testing.assert_close(values["rows"], rows)
    torch.testing.assert_close(values["loss"], features + 0.5 * rows)


def test_the_student_learns_the_features_and_nothing_else_changes(model, data):
    before = model.hash()
    student = distill(model, data, DistillSpec(lr=1e-3, epochs=40, batch_size=8))
    pixels = data.pixels(torch.arange(8), 48)
    far = distillation(model.clip.encode_image(pixels), model.encode_image(pixels))
    near = distillation(student.encode_image(pixels), model.encode_image(pixels))
    assert near < 0.1 * far
    assert torch.equal(student.encode_text(CLASSES), model.encode_text(CLASSES))
    assert model.hash() == before
    again = distill(model, data, DistillSpec(lr=1e-3, epochs=40, batch_size=8))
    assert again.hash() == student.hash()


def test_what_is_written_is_a_plain_clipmodel(model, data, tmp_path):
    export(model, "distilled", tmp_path / "out", data=data, epochs=1)
    told = read_manifest(tmp_path / "out", "export")
    loaded = rvpt.load(tmp_path / "out")
    assert isinstance(loaded, rvpt.Clip)
    assert loaded.hash() == told["trained_sha256"] != model.clip.hash()
    assert told["model"]["sha256"] == model.hash()
    assert told["spec"]["epochs"] == 1
    assert type(CLIPModel.from_pretrained(tmp_path / "out")) is CLIPModel


def test_it_needs_images_and_prompts(model, tmp_path):
    with pytest.raises(RvptError, match="trained on clean images: pass data=DATA"):
        export(model, "distilled", tmp_path / "out")
    with pytest.raises(RvptError, match="use to=hf, openclip or openai"):
        distill(Cleaned(random_clip(), own_weights=True), memory_data(2), DistillSpec())
    with pytest.raises(RvptError, match="unknown setting"):
        export(model, "distilled", tmp_path / "out", data=memory_data(2), temperature=3)
    assert not list(tmp_path.iterdir())


def test_small_models_have_a_higher_learning_rate(model):
    assert DISTILLED.settings(model).lr == 1e-3
    assert DistillSpec().lr == 1e-5

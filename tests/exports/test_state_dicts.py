"""Exports by OpenAI's names: exact inverses of how such models are read."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import rvpt
from exported import openai_clip, prompts_for, sorts_of_models
from openai_layout import TEXTS, Geometry, Naive, random_weights
from rvpt.data.preprocess import Resizing
from rvpt.errors import RvptError
from rvpt.exports.open_clip import mlp_ratio
from rvpt.exports.save import export
from rvpt.models.cleaned import Cleaned
from rvpt.models.formats.load import load_clip
from rvpt.tensors import read_tensors

OTHER = Geometry(4, 24, 96, 3, 1, 400, 48, 3, 2, 40)
FILES = {"openclip": "open_clip_model.safetensors", "openai": "model.safetensors"}


def as_tuned(clip):
    return Cleaned(clip, own_weights=True, facts={"name": "tuned", "defense": "par"})


@pytest.mark.parametrize("name", FILES)
def test_weights_come_back_bit_for_bit(name, tmp_path):
    clip = openai_clip(tmp_path / "clip")
    export(as_tuned(clip), name, tmp_path / "out")
    theirs = random_weights()
    written = read_tensors(tmp_path / "out" / FILES[name])
    torch.testing.assert_close(written, theirs, rtol=0, atol=0)
    place = tmp_path / "out" if name == "openclip" else tmp_path / "out" / FILES[name]
    back = load_clip(place, activation="quick_gelu")
    torch.testing.assert_close(back.state_dict(), clip.state_dict(), rtol=0, atol=0)
    assert back.hash() == clip.hash()
    assert back.model.config.to_dict() == clip.model.config.to_dict()


@pytest.mark.parametrize("geometry", [Geometry(), OTHER], ids=["usual", "other"])
@pytest.mark.parametrize("quick", [True, False], ids=["quick_gelu", "gelu"])
def test_a_folder_of_open_clip_keeps_geometry_activation_and_tokenizer(geometry, quick, tmp_path):
    clip = openai_clip(tmp_path / "clip", geometry, quick=quick)
    export(clip, "openclip", tmp_path / "out")
    back, pixels = rvpt.load(tmp_path / "out"), torch.rand(2, 3, geometry.side, geometry.side)
    assert torch.equal(back.tokenize(TEXTS), clip.tokenize(TEXTS))
    assert torch.equal(back.encode_image(pixels), clip.encode_image(pixels))
    naive = Naive(random_weights(geometry), geometry, quick=quick)
    torch.testing.assert_close(back.encode_image(pixels), naive.image(back.normalize(pixels)), atol=1e-5, rtol=0)
    torch.testing.assert_close(back.encode_text(TEXTS), naive.text(TEXTS), atol=1e-5, rtol=0)


GEOMETRIES = st.builds(
    Geometry,
    patch=st.sampled_from([2, 4]), side=st.just(8), width=st.sampled_from([16, 24, 64]), heads=st.sampled_from([1, 2]),
    layers=st.integers(1, 3), hidden=st.integers(1, 90), text_width=st.sampled_from([8, 16]),
    text_heads=st.sampled_from([1, 2]), text_layers=st.integers(1, 2), length=st.integers(3, 12),
    features=st.integers(1, 9),
)  # fmt: skip


@given(GEOMETRIES, st.booleans())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_geometry_comes_back(tmp_path_factory, geometry, quick):
    home = tmp_path_factory.mktemp("geometry")
    clip = openai_clip(home / "clip", geometry, quick=quick)
    export(clip, "openclip", home / "out")
    back = load_clip(home / "out")
    assert back.hash() == clip.hash()
    assert back.model.config.to_dict() == clip.model.config.to_dict()


@given(st.integers(1, 5000), st.integers(1, 20000))
def test_the_ratio_gives_the_hidden_units_as_open_clip_computes_them(width, hidden):
    assert int(width * mlp_ratio(width, hidden)) == hidden


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quick": False}, "activation: gelu, and OpenAI's code takes quick_gelu for granted"),
        ({"geometry": Geometry(width=128, heads=4, hidden=512)}, "heads of the image tower: 4, .* takes 2"),
        ({"geometry": Geometry(hidden=200)}, "hidden units of the image tower: 200"),
    ],
)
def test_openai_refuses_what_its_code_cannot_state(change, message, tmp_path):
    with pytest.raises(RvptError, match=f"{message}.*use to=openclip"):
        export(openai_clip(tmp_path / "clip", **change), "openai", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_openai_refuses_another_normalization(tmp_path):
    clip = openai_clip(tmp_path / "clip")
    clip.mean.fill_(0.5)
    with pytest.raises(RvptError, match="preprocesses images otherwise"):
        export(clip, "openai", tmp_path / "out")


def test_open_clip_refuses_a_crop_from_larger_images_which_it_cannot_state(tmp_path):
    clip = openai_clip(tmp_path / "clip")
    clip.resizing = Resizing(resized=clip.image_size + 8)
    with pytest.raises(RvptError, match=r"open_clip_config\.json cannot say: use to=onnx or torch"):
        export(clip, "openclip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("sort", ["plain", "prompted"])
def test_texts_that_end_with_a_low_token_are_refused(name, sort, clip, tmp_path):
    model = sorts_of_models(clip)[sort]  # distilling one with prompts would not help
    with pytest.raises(RvptError, match=r"would give other text features: .*: use to=hf, onnx or torch"):
        export(model, name, tmp_path / "out")


def test_prompts_are_refused_with_what_to_do_first(tmp_path):
    clip = openai_clip(tmp_path / "clip", Geometry(layers=4))
    with pytest.raises(RvptError, match=r"has prompts, which openclip cannot hold: first train .* to=distilled"):
        export(Cleaned(clip, prompts_for(clip)), "openclip", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("geometry", [Geometry(), OTHER], ids=["usual", "other"])
def test_open_clip_itself_gives_the_same_features(geometry, tmp_path):
    pytest.importorskip("transformers.models.clip.modeling_clip")  # before open_clip, which imports more
    open_clip = pytest.importorskip("open_clip")
    clip = openai_clip(tmp_path / "clip", geometry)
    export(clip, "openclip", tmp_path / "out")
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'out'}")
    pixels, ids = torch.rand(2, 3, geometry.side, geometry.side), torch.zeros(3, geometry.length, dtype=torch.int64)
    found = clip.tokenize(TEXTS)
    ids[:, : found.shape[1]] = found
    with torch.no_grad():
        image, text = model.encode_image(clip.normalize(pixels)), model.encode_text(ids)
    torch.testing.assert_close(F.normalize(image, dim=1), clip.encode_image(pixels), atol=1e-5, rtol=0)
    torch.testing.assert_close(F.normalize(text, dim=1), clip.encode_text(TEXTS), atol=1e-5, rtol=0)

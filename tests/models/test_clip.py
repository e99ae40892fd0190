"""A CLIP in Python: the calls that transformers' CLIPModel has give what transformers gives; saved as one folder."""

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

import rvpt
from helpers import contents, random_clip, random_image, random_pixels
from rvpt.artifacts import read_manifest
from rvpt.errors import RvptError

TEXTS = ["a red star.", "a picture of a small green anchor in the middle."]
IMAGES = [random_image(60, 48, 1), random_image(50, 91, 2), random_image(48, 48, 3)]


def tokens(clip):
    return clip.tokenizer(TEXTS, padding=True, return_tensors="pt")


@torch.no_grad()
def test_preprocess_is_what_transformers_makes_of_the_saved_settings(clip, tmp_path):
    pil = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    clip.save_pretrained(tmp_path / "saved")
    processor = pil.CLIPImageProcessorPil.from_pretrained(tmp_path / "saved")
    theirs = processor(IMAGES, return_tensors="pt")["pixel_values"]
    ours = clip.preprocess(IMAGES)
    assert ours.shape == theirs.shape == (3, 3, 48, 48)
    assert (ours - theirs).abs().max() < 1.5 / 255 / 0.26  # a rounding step of 8 bits at the smallest deviation
    assert torch.equal(clip.preprocess(IMAGES[0]), ours[:1])


@torch.no_grad()
def test_features_are_transformers_own(clip):
    values, words = clip.preprocess(IMAGES), tokens(clip)
    theirs = clip.model.get_image_features(pixel_values=values).pooler_output
    torch.testing.assert_close(clip.get_image_features(values), theirs)
    for masked in (dict(words), {"input_ids": words["input_ids"]}):
        theirs = clip.model.get_text_features(**masked).pooler_output
        torch.testing.assert_close(clip.get_text_features(**masked), theirs)


@torch.no_grad()
def test_called_with_what_a_processor_makes_it_gives_transformers_output(clip):
    inputs = {**tokens(clip), "pixel_values": clip.preprocess(IMAGES)}
    ours, theirs = clip(**inputs), clip.model(**inputs)
    for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        torch.testing.assert_close(ours[name], theirs[name])
    assert ours.logits_per_image.shape == (3, 2)


@torch.no_grad()
def test_unit_features_are_those_of_transformers_normalized(clip):
    pixels = random_pixels(2, 48)
    features = clip.get_image_features(clip.normalize(pixels))
    torch.testing.assert_close(clip.encode_image(pixels), features / features.norm(dim=1, keepdim=True))
    features = clip.get_text_features(tokens(clip)["input_ids"])
    torch.testing.assert_close(clip.encode_text(TEXTS), features / features.norm(dim=1, keepdim=True))


@torch.no_grad()
def test_many_texts_are_encoded_in_parts(clip, monkeypatch):
    texts = [TEXTS[place % 2] for place in range(5)]
    whole = clip.encode_text(texts)
    monkeypatch.setattr("rvpt.models.clip.TEXT_BATCH", 2)
    torch.testing.assert_close(clip.encode_text(texts), whole)


@torch.no_grad()
def test_class_features_are_those_of_the_captions(clip):
    captions = ["one red fox!", "one owl!"]
    assert torch.equal(clip.class_features(["red_fox", "owl"], "one {}!"), clip.encode_text(captions))


@torch.no_grad()
@pytest.mark.parametrize("layers", [[0], [-1], [2, 0], [4, 1, -1]])
def test_hidden_states_are_those_of_transformers(clip, layers):
    pixels = random_pixels(2, 48)
    states = clip.model.vision_model(clip.normalize(pixels), output_hidden_states=True).hidden_states
    for ours, layer in zip(clip.hidden_states(pixels, layers), layers, strict=True):
        torch.testing.assert_close(ours, states[layer])
    rows = torch.stack([state[:, 0] for state in states[1:]], dim=1)
    torch.testing.assert_close(clip.cls_rows(pixels), rows)


def test_to_transformers_is_a_copy(clip):
    copy = clip.to_transformers()
    assert type(copy) is CLIPModel
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in clip.model.state_dict().items())
    assert not {p.data_ptr() for p in copy.parameters()} & {p.data_ptr() for p in clip.model.parameters()}


def test_parameters_are_counted_without_the_table_of_tokens_or_with_it(clip):
    whole = sum(parameter.numel() for parameter in clip.model.parameters())
    table = clip.model.config.text_config.vocab_size * 32
    assert clip.parameter_count(tokens=True) == whole
    assert clip.parameter_count() == whole - table


def test_images_are_normalized_in_float32_whatever_the_dtype():
    clip = random_clip()
    pixels, mean = random_pixels(1, 48), clip.mean.clone()
    expected = clip.normalize(pixels)
    clip.to(torch.bfloat16)
    assert torch.equal(clip.mean, mean)
    assert torch.equal(clip.normalize(pixels), expected.to(torch.bfloat16))
    assert clip.encode_image(pixels).dtype == torch.bfloat16


# Saved


def test_a_saved_model_is_the_same_and_transformers_reads_it(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip.save_pretrained("saved")  # a plain name, as transformers has it
    loaded = rvpt.load("saved")
    assert loaded.hash() == clip.hash() == read_manifest(tmp_path / "saved", "clip")["sha256"]
    assert torch.equal(loaded.mean, clip.mean)
    assert torch.equal(loaded.tokenize(TEXTS), clip.tokenize(TEXTS))
    with torch.no_grad():
        theirs = CLIPModel.from_pretrained("saved").eval()(**tokens(clip), pixel_values=clip.preprocess(IMAGES))
    torch.testing.assert_close(theirs.logits_per_image, clip(**tokens(clip), pixel_values=clip.preprocess(IMAGES))[0])
    words = AutoTokenizer.from_pretrained("saved")(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(words["input_ids"], tokens(clip)["input_ids"])


def test_a_saved_model_has_a_card(clip, tmp_path):
    clip.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    head, title = card.split("---\n")[1:]
    assert "library_name: transformers" in head
    assert title.lstrip().startswith("# saved\n")


def test_a_saved_model_is_replaced_only_if_asked(clip, tmp_path):
    clip.save_pretrained(str(tmp_path / "saved"))
    before = contents(tmp_path)
    with pytest.raises(RvptError, match="saved already exists: choose another folder or pass overwrite=True"):
        clip.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path) == before
    random_clip(seed=1).save_pretrained(tmp_path / "saved", overwrite=True)
    assert rvpt.load(tmp_path / "saved").hash() != clip.hash()
    assert contents(tmp_path).keys() == before.keys()


def test_nothing_is_left_when_saving_fails(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("rvpt.models.architectures.base.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clip.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path) == {}


def test_a_model_that_was_changed_after_it_was_saved_is_refused(clip, tmp_path):
    clip.save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RvptError, match=r"model\.safetensors was changed after it was created"):
        rvpt.load(tmp_path / "saved")


def test_the_hash_sees_every_weight():
    clip = random_clip()
    before = clip.hash()
    for parameter in clip.parameters():
        kept = parameter.detach().clone()
        parameter.data.flatten()[-1] += 1
        assert clip.hash() != before
        parameter.data.copy_(kept)
    assert clip.hash() == before


def test_a_model_in_half_precision_keeps_its_hash_when_it_is_saved_and_loaded(tmp_path):
    clip = random_clip().half()
    clip.save_pretrained(tmp_path / "half")
    assert {value.dtype for value in CLIPModel.from_pretrained(tmp_path / "half", dtype="auto").parameters()} == {
        torch.float16
    }
    loaded = rvpt.load(tmp_path / "half")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert loaded.hash() == clip.hash()


def test_neither_saving_nor_loading_prints_anything(clip, tmp_path, capfd):
    clip.save_pretrained(tmp_path / "saved")
    rvpt.load(tmp_path / "saved")
    assert capfd.readouterr() == ("", "")


def test_its_repr_is_one_short_line(clip):
    assert repr(clip).startswith("Clip('clip', 0.")
    assert repr(clip).endswith("M parameters, images of side 48)")

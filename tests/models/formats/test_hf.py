"""Layouts that CLIPs really come in, with random weights: each loads, and gives what transformers gives."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig, CLIPModel, CLIPTokenizer

import rvpt
from commands import PRETRAIN, works
from helpers import random_pixels
from rvpt.clip import OPENAI_MEAN, OPENAI_STD
from rvpt.loaders import load_clip
from rvpt.readers import to_array
from rvpt.store import read_manifest, write_json

SIDE = 32
PIXELS = random_pixels(4, SIDE)
TEXTS = ["a photo of a cat.", "a photo of a gray seal, in the middle", "cat"]
HALVES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.5, 0.6]}


def openai_tokenizer():
    """CLIP's byte-level BPE with a few merges: letters, letters that end a word, merges, and the two ends."""
    letters = list("abcdefghijklmnopqrstuvwxyz.,")
    merges = [("a", "t</w>"), ("c", "at</w>"), ("p", "h"), ("o", "t")]
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=merges)


def write_model(folder, eos=None, **saving):
    """A random CLIPModel as transformers saves it, in the layout of openai/clip-vit-base-patch32."""
    tokenizer = openai_tokenizer()
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "quick_gelu"}
    text = {
        "hidden_size": 24, "intermediate_size": 96, "vocab_size": len(tokenizer), "max_position_embeddings": 40,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id if eos is None else eos,
    }  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 128, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config={**tower, **text}, vision_config={**tower, **vision}, projection_dim=16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, **saving)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def theirs(folder, pixels, texts, mean=OPENAI_MEAN, std=OPENAI_STD):
    """What plain transformers makes of images and texts: unit features of both, and tau times their cosines."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mean, std = (torch.tensor(value)[:, None, None] for value in (mean, std))
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    out = model(**inputs, pixel_values=(pixels - mean) / std)
    return out.image_embeds, out.text_embeds, out.logits_per_image


@torch.no_grad()
def ours(clip, pixels, texts):
    image, text = clip.encode_image(pixels), clip.encode_text(texts)
    return image, text, clip.logit_scale * image @ text.T


def same(clip, folder, pixels=PIXELS, **geometry):
    pairs = zip(ours(clip, pixels, TEXTS), theirs(folder, pixels, TEXTS, **geometry), strict=True)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("eos", [None, 2], ids=["eos as it is", "eos 2, as in OpenAI's configurations"])
def test_a_model_of_transformers(tmp_path, eos):
    folder = write_model(tmp_path / "model", eos)
    clip = load_clip(folder)
    assert same(clip, folder)
    assert (clip.name, clip.image_size, clip.width, len(clip.blocks)) == ("model", SIDE, 32, 2)
    assert not clip.model.training


def test_a_model_in_several_files(tmp_path):
    folder = write_model(tmp_path / "shards", max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert load_clip(folder).hash() == load_clip(write_model(tmp_path / "whole")).hash()


def test_the_words_of_a_vocabulary_and_merges_alone(tmp_path):
    folder = write_model(tmp_path / "model")
    facts = json.loads((folder / "tokenizer.json").read_text())["model"]
    write_json(folder / "vocab.json", facts["vocab"])
    merges = "".join(" ".join(pair) + "\n" for pair in facts["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges)
    expected = load_clip(folder).tokenize(TEXTS)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    assert torch.equal(load_clip(folder).tokenize(TEXTS), expected)


def test_long_texts_are_cut_at_the_models_length(tmp_path):
    clip = load_clip(write_model(tmp_path / "model"))
    assert clip.tokenize(["cat " * 100]).shape == (1, 40)
    assert clip.encode_text(["cat " * 100]).isfinite().all()


def test_mean_and_standard_deviation_are_the_models_own(tmp_path):
    folder = write_model(tmp_path / "model")
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **HALVES})
    clip = load_clip(folder)
    assert same(clip, folder, mean=HALVES["image_mean"], std=HALVES["image_std"])
    assert not same(clip, folder)


def test_mean_and_standard_deviation_are_found_with_the_tokenizers_settings(tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    write_json(folder / "processor_config.json", {"image_processor": HALVES, "processor_class": "CLIPProcessor"})
    assert same(load_clip(folder), folder, mean=HALVES["image_mean"], std=HALVES["image_std"])


def test_a_model_of_the_hub_comes_with_its_own_mean_and_standard_deviation(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--tiny-clip"
    folder = write_model(repository / "snapshots" / ("0" * 40))
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **HALVES})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    clip = load_clip("owner/tiny-clip")
    assert clip.name == "owner/tiny-clip"
    assert same(clip, folder, mean=HALVES["image_mean"], std=HALVES["image_std"])


def test_what_was_pretrained_is_a_model_of_transformers(tiny):
    clip = load_clip(tiny.clip)
    assert same(clip, tiny.clip, random_pixels(3, 48))
    ids = AutoTokenizer.from_pretrained(tiny.clip)(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(clip.tokenize(TEXTS), ids)


def test_transformers_prepares_images_for_what_was_pretrained_as_we_do(tiny):
    clip = load_clip(tiny.clip)
    image = Image.fromarray((random_pixels(1, 64)[0, :, :60].permute(1, 2, 0) * 255).to(torch.uint8).numpy())
    theirs = AutoImageProcessor.from_pretrained(tiny.clip)(image, return_tensors="pt")["pixel_values"][0]
    mine = (torch.from_numpy(np.ascontiguousarray(to_array(image, 48))) / 255 - clip.mean) / clip.std
    assert (mine - theirs).abs().max() < 0.05


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    works("pretrain", "--out", tmp_path / "half", *PRETRAIN, "--half")
    stored = CLIPModel.from_pretrained(tmp_path / "half", dtype="auto")
    assert {p.dtype for p in stored.parameters()} == {torch.float16}
    clip = load_clip(tmp_path / "half")
    assert {p.dtype for p in clip.parameters()} == {torch.float32}
    assert all(torch.equal(p.half(), q) for p, q in zip(clip.parameters(), stored.parameters(), strict=True))
    assert clip.hash() == read_manifest(tmp_path / "half")["sha256"]


def test_the_hash_stays_over_saving_and_sees_every_weight(tiny, tmp_path):
    clip = load_clip(tiny.clip)
    assert clip.hash() == read_manifest(tiny.clip, "clip")["sha256"]
    clip.save_pretrained(tmp_path / "again")
    again = load_clip(tmp_path / "again")
    assert again.hash() == clip.hash()
    assert torch.equal(again.mean, clip.mean)
    for parameter in again.parameters():
        kept = parameter.detach().clone()
        parameter.data.flatten()[-1] += 1
        assert again.hash() != clip.hash()
        parameter.data.copy_(kept)
    assert again.hash() == clip.hash()


def test_a_model_cleaned_in_python_is_found_again_from_anywhere(tmp_path, clip, scenes, monkeypatch):
    (tmp_path / "suspect").mkdir()
    clip.save_pretrained(tmp_path / "suspect")
    monkeypatch.chdir(tmp_path)
    cleaned = rvpt.clean(rvpt.load("suspect"), scenes, rvpt.RVPTSpec(first_block=1, length=2, epochs=1))
    cleaned.save_pretrained("cleaned")
    (tmp_path / "elsewhere").mkdir()
    for name in ("suspect", "cleaned"):  # they are moved together
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pixels = scenes.pixels(scenes.rows[:2] * 0, clip.image_size)
    assert rvpt.load("../elsewhere/cleaned").encode_image(pixels).equal(cleaned.encode_image(pixels))

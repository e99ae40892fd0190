"""transformers' layout as real CLIPs have it, with random weights: each loads, and gives what transformers gives."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, CLIPTokenizer

import rvpt
from helpers import random_pixels
from openai_layout import open_clip_config, random_weights, write_tokenizer
from rvpt.data.preprocess import OPENAI_MEAN, OPENAI_STD
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.formats.load import load_clip
from rvpt.models.formats.single_file import FILE
from rvpt.models.formats.tokenizers import FILES

SIDE = 32
PIXELS = random_pixels(4, SIDE)
TEXTS = ["a photo of a cat.", "a photo of a gray seal, in the middle", "cat"]
END = "<|endoftext|>"
HALVES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.5, 0.6]}


def openai_tokenizer():
    """CLIP's byte-level BPE with a few merges: letters, letters that end a word, merges, and the two ends."""
    letters = list("abcdefghijklmnopqrstuvwxyz.,")
    merges = [("a", "t</w>"), ("c", "at</w>"), ("p", "h"), ("o", "t")]
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=merges)


def write_model(folder, eos=None, seed=0, act="quick_gelu", **saving):
    """A random CLIPModel as transformers saves it, in the layout of openai/clip-vit-base-patch32."""
    tokenizer = openai_tokenizer()
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": act}
    text = {
        "hidden_size": 24, "intermediate_size": 96, "vocab_size": len(tokenizer), "max_position_embeddings": 40,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id if eos is None else eos,
    }  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 128, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(seed)
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
def test_a_model_of_transformers_is_read(tmp_path, eos):
    folder = write_model(tmp_path / "model", eos)
    clip = load_clip(folder)
    assert same(clip, folder)
    assert (clip.name, clip.image_size, clip.width, len(clip.blocks)) == ("model", SIDE, 32, 2)
    assert not clip.model.training


def test_a_model_in_several_files_is_read(tmp_path):
    folder = write_model(tmp_path / "shards", max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert load_clip(folder).hash() == load_clip(write_model(tmp_path / "whole")).hash()


def test_a_vocabulary_and_merges_are_enough_for_a_tokenizer(tmp_path):
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


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_file_of_a_folder_is_read_as_its_configurations_say(tmp_path, file, caplog):
    folder = write_model(tmp_path / "model", act="gelu")
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **HALVES})
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    clip = load_clip(folder / file)
    assert clip.activation == "gelu"
    assert same(clip, folder, mean=HALVES["image_mean"], std=HALVES["image_std"])
    assert not caplog.records


def test_a_file_without_its_tokenizer_is_read_with_what_is_stated(tmp_path):
    folder = write_model(tmp_path / "model", act="gelu")
    parts = FILE.open("model", folder / "model.safetensors")
    for file in FILES:
        (folder / file).unlink(missing_ok=True)
    alone = FILE.open("model", folder / "model.safetensors")
    assert (parts.whole, alone.whole) == ("clip", None)  # CLIP's own tokenizer may be used
    assert alone.config["vision_config"]["hidden_act"] == "gelu"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write_json(folder / "config.json", {"model_type": "run", "epochs": 3}),
        lambda folder: write_json(folder / "preprocessor_config.json", {"do_resize": False}),
    ],
    ids=["of another program", "preprocessing that is not supported"],
)
def test_a_file_beside_configurations_that_cannot_be_used_is_read_with_a_warning(tmp_path, change, caplog):
    folder = write_model(tmp_path / "model")
    weights = load_clip(folder).hash()
    change(folder)
    assert load_clip(folder / "model.safetensors").hash() == weights
    assert "the configurations beside the file are not used: " in caplog.text


def test_mean_and_standard_deviation_are_found_in_a_processors_settings(tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    write_json(folder / "processor_config.json", {"image_processor": HALVES, "processor_class": "CLIPProcessor"})
    assert same(load_clip(folder), folder, mean=HALVES["image_mean"], std=HALVES["image_std"])


FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache with two commits of owner/tiny-clip, which differ in their weights; main is the second."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--tiny-clip"
    for seed, commit in enumerate((FIRST, SECOND)):
        folder = write_model(repository / "snapshots" / commit, seed=seed)
        write_json(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **HALVES})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SECOND)
    (repository / "refs" / "v1").write_text(FIRST)
    return repository / "snapshots"


def test_a_model_of_the_hub_comes_with_its_own_mean_and_standard_deviation(hub):
    clip = load_clip("owner/tiny-clip")
    assert clip.name == clip.source == "owner/tiny-clip"
    assert same(clip, hub / SECOND, mean=HALVES["image_mean"], std=HALVES["image_std"])


@pytest.mark.parametrize(
    ("revision", "commit"), [(None, SECOND), ("main", SECOND), ("v1", FIRST), (FIRST, FIRST)], ids=str
)
def test_the_commit_of_a_hub_model_is_recorded(hub, revision, commit):
    clip = rvpt.load("owner/tiny-clip", revision=revision)
    assert clip.revision == commit
    assert clip.hash() == load_clip(hub / commit).hash()


def test_a_cleaned_hub_model_is_loaded_at_the_commit_that_was_cleaned(hub, tmp_path):
    suspect = rvpt.load("owner/tiny-clip", revision="v1")
    cleaned = rvpt.Cleaned(suspect, rvpt.RepulsivePrompts.for_model(suspect, first_block=1, length=2))
    cleaned.save_pretrained(tmp_path / "cleaned")
    config = read_json(tmp_path / "cleaned" / "rvpt_config.json")
    assert (config["base_model_name_or_path"], config["base_model_revision"]) == ("owner/tiny-clip", FIRST)
    loaded = rvpt.load(tmp_path / "cleaned")  # main has moved on
    assert (loaded.clip.revision, loaded.hash()) == (FIRST, cleaned.hash())


def test_a_revision_that_is_not_there_is_refused(hub):
    with pytest.raises(
        RvptError, match=r"owner/tiny-clip \(revision v9\): no such folder here, and the hub cannot be asked"
    ):
        rvpt.load("owner/tiny-clip", revision="v9")


def test_a_folder_has_no_revision(tmp_path):
    assert load_clip(write_model(tmp_path / "model")).revision is None


# Weights and configurations of other ages


def as_pickled(folder, **options):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin", **options)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_pickled_weights_are_read_as_data(tmp_path, zipped):
    expected = load_clip(write_model(tmp_path / "whole")).hash()
    folder = as_pickled(write_model(tmp_path / "model"), _use_new_zipfile_serialization=zipped)
    assert load_clip(folder).hash() == expected


def test_pickled_weights_in_several_files_are_read(tmp_path):
    folder, placed = write_model(tmp_path / "model"), {}
    expected = load_clip(folder).hash()
    for number, (name, value) in enumerate(load_file(folder / "model.safetensors").items()):
        shard = placed[name] = f"pytorch_model-{number % 3}.bin"
        old = torch.load(folder / shard, weights_only=True) if (folder / shard).is_file() else {}
        torch.save({**old, name: value}, folder / shard)
    (folder / "model.safetensors").unlink()
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": placed})
    assert load_clip(folder).hash() == expected
    (folder / "pytorch_model-1.bin").unlink()
    with pytest.raises(RvptError, match=r"pytorch_model-1\.bin is missing, one of 3 files with weights"):
        load_clip(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_become_float32(tmp_path, dtype):
    folder = write_model(tmp_path / "model")
    weights = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    clip = load_clip(folder)
    assert {parameter.dtype for parameter in clip.model.parameters()} == {torch.float32}
    assert same(clip, folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_a_prefix_of_all_weights_is_removed_and_named(tmp_path, prefix, caplog):
    folder = write_model(tmp_path / "model")
    expected = load_clip(folder).hash()
    weights = {prefix + name: value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_clip(folder).hash() == expected
    assert f"the prefix {prefix} was removed" in caplog.text


def test_numbers_of_positions_in_old_weights_are_left_out(tmp_path):
    folder = write_model(tmp_path / "model")
    expected = load_clip(folder).hash()
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(40)[None]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_clip(folder).hash() == expected


def test_old_configurations_of_the_towers_are_read(tmp_path):
    folder = write_model(tmp_path / "model")
    expected = ours(load_clip(folder), PIXELS, TEXTS)
    config = read_json(folder / "config.json")
    for tower in ("text_config", "vision_config"):
        config[f"{tower}_dict"] = config.pop(tower)
    write_json(folder / "config.json", config)
    assert all(map(torch.equal, ours(load_clip(folder), PIXELS, TEXTS), expected))


def test_a_tokenizer_without_padding_gets_one(tmp_path):
    folder = write_model(tmp_path / "model")
    expected = ours(load_clip(folder), PIXELS, TEXTS)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END})
    write_json(folder / "tokenizer.json", {**read_json(folder / "tokenizer.json"), "padding": None})
    found = ours(load_clip(folder), PIXELS, TEXTS)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_preprocessing_that_is_not_followed_is_refused(tmp_path):
    folder = write_model(tmp_path / "model")
    write_json(folder / "preprocessor_config.json", {**HALVES, "do_resize": False})
    with pytest.raises(RvptError, match=r"preprocessor_config.json: do_resize is false, which is not supported"):
        load_clip(folder)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A hub's cache with a model of open_clip, owner/open."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = write_tokenizer(tmp_path / "models--owner--open" / "snapshots" / SECOND)
    write_json(snapshot / "open_clip_config.json", open_clip_config(quick=False))
    torch.save(random_weights(), snapshot / "open_clip_pytorch_model.bin")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(SECOND)
    return snapshot


def test_an_open_clip_model_of_the_hub_is_read(repository):
    clip = rvpt.load("owner/open")
    assert (clip.revision, clip.activation, clip.source) == (SECOND, "gelu", "owner/open")


def test_an_open_clip_model_of_the_hub_with_a_configuration_of_timm_is_read(repository):
    write_json(repository / "config.json", {"architecture": "vit_base_patch32_clip_224"})
    assert rvpt.load("owner/open").activation == "gelu"


def test_of_a_repository_with_two_layouts_the_one_of_transformers_is_read(repository, tmp_path):
    folder = write_model(tmp_path / "both")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / file, repository / file)
    assert rvpt.load("owner/open").activation == "gelu"  # it has no weights of transformers yet
    torch.save(load_file(folder / "model.safetensors"), repository / "pytorch_model.bin")
    assert rvpt.load("owner/open").hash() == load_clip(folder).hash()

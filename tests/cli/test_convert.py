"""rvpt convert and rvpt info."""

import json

import pytest
import torch
from transformers import CLIPModel

import rvpt
from commands import has, refused, works
from commands import rvpt as run
from helpers import contents
from openai_layout import open_clip_config, random_weights, write_tokenizer
from rvpt.artifacts import read_manifest
from rvpt.files import sha256_file, write_json
from rvpt.models.formats.load import load_clip


@pytest.fixture
def checkpoint(home):
    """A training checkpoint as CleanCLIP and open_clip save it, with an optimizer."""
    weights = random_weights()
    state = {"step": torch.ones(1), "exp_avg": torch.ones(2)}
    named = {f"module.{name}": value for name, value in weights.items()}
    path = write_tokenizer(home / "run") / "epoch_10.pt"
    torch.save({"epoch": 10, "state_dict": named, "optimizer": {"state": {0: state}}}, path)
    return path


def test_a_checkpoint_becomes_a_folder_of_transformers(home, checkpoint):
    facts = json.loads(works("convert", checkpoint, "-o", "out", "--activation", "gelu", "--json"))
    before, after = load_clip(checkpoint, activation="gelu"), load_clip("out")
    assert facts["sha256"] == before.hash() == after.hash()
    assert after.activation == "gelu"
    pixels = torch.rand(2, 3, 32, 32)
    plain = CLIPModel.from_pretrained("out").eval()
    with torch.no_grad():
        theirs = plain.get_image_features(after.normalize(pixels)).pooler_output
        torch.testing.assert_close(after.get_image_features(after.normalize(pixels)), theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(before.encode_image(pixels), after.encode_image(pixels), atol=1e-6, rtol=0)
        torch.testing.assert_close(before.encode_text(["a cat"]), after.encode_text(["a cat"]), atol=1e-6, rtol=0)
    told = read_manifest(home / "out", "clip")
    assert told["source"] == str(checkpoint)
    assert told["converted"]["files"] == {"epoch_10.pt": sha256_file(checkpoint)}


def test_half_precision_is_written_when_asked(home, checkpoint):
    works("convert", checkpoint, "-o", "out", "--precision", "fp16", "--activation", "gelu")
    assert CLIPModel.from_pretrained("out").dtype == torch.float16
    works("verify", "out")


def test_an_existing_folder_is_kept_unless_told(home, checkpoint):
    words = ["convert", checkpoint, "-o", "out", "--activation", "gelu"]
    works(*words)
    before = contents(home / "out")
    has(refused(*words), "out already exists", "--overwrite")
    assert contents(home / "out") == before
    works(*words, "--overwrite")
    has(refused("convert", "out", "-o", "out", "--overwrite"), "out holds out, which this command reads")


def test_a_guess_is_a_warning_that_names_the_option(checkpoint):
    result = run("info", checkpoint)
    has(result.stderr, "WARNING", "quick_gelu", "does not state its activation")


def test_what_a_checkpoint_is_is_shown(checkpoint):
    facts = json.loads(works("info", checkpoint, "--json"))
    assert facts["layout"] == "a file of PyTorch's"
    assert facts["pickled"] is True
    assert facts["dtype"] == "F32"
    assert facts["not read"] == ["optimizer (2 tensors)"]
    assert facts["model"]["name"] == "ViT, patch 8, image 32"
    assert facts["model"]["image tower"] == "2 blocks, width 64, 1 heads"
    assert (facts["activation"], facts["activation stated"]) == ("quick_gelu", False)
    assert facts["files"]["epoch_10.pt"]["sha256"] == sha256_file(checkpoint)
    assert facts["parameters"] == sum(value.numel() for value in random_weights().values())


def test_what_the_embedded_model_is_is_shown():
    facts = json.loads(works("info", "scenes-clip", "--json"))
    assert (facts["layout"], facts["pickled"]) == ("a folder of transformers", False)
    assert facts["sha256 of the weights in float32"] == rvpt.load("scenes-clip").hash()
    assert facts["preprocessing"]["stated"] is True
    text = works("info", "scenes-clip")
    has(text, "tokenizer, end of text", "preprocessing, size", "pickled", "no")


def test_what_a_cleaned_model_is_is_shown(tiny):
    facts = json.loads(works("info", tiny.cleaned, "--json"))
    assert (facts["layout"], facts["defense"]) == ("a model cleaned by rvpt", "rvpt")


@pytest.mark.parametrize("command", [("convert",), ("export", "--to", "hf")], ids=lambda words: words[0])
def test_a_model_that_was_backdoored_on_purpose_is_called_so(tiny, home, command):
    works(*command, tiny.backdoored, "-o", "out")
    assert "backdoored on purpose" in (home / "out" / "README.md").read_text()
    for again in (("convert",), ("export", "--to", "hf")):
        works(*again, "out", "-o", again[0])
        assert "backdoored on purpose" in (home / again[0] / "README.md").read_text()
    works(*command, tiny.clip, "-o", "clean")
    assert "backdoored" not in (home / "clean" / "README.md").read_text()


def test_options_that_do_not_apply_are_refused(tiny):
    has(refused("info", tiny.cleaned, "--activation", "gelu"), "is a cleaned model", "remove --activation gelu")
    for folder in (tiny.clip, tiny.backdoored):  # the second has triggers, which have no base either
        has(refused("verify", folder, "--base-model", "x"), f"{folder} has no base model: remove --base-model x")


def test_what_cannot_be_read_is_said_in_one_line(home):
    write_json(home / "adapter_config.json", {"peft_type": "LORA"})
    has(refused("info", home), "an adapter of PEFT", "merge_and_unload")
    write_json(home / "other" / "open_clip_config.json", open_clip_config())
    has(refused("convert", "other", "-o", "out"), "has no weights")
    assert not (home / "out").exists()


def test_all_commands_read_any_layout(home, checkpoint):
    rows = json.loads(works("evaluate", checkpoint, "--data", "scenes:24", "--json"))
    assert rows[0]["metric"] == "CA"
    assert rows[0]["hashes"]["model"] == load_clip(checkpoint).hash()

"""What is refused when a model is read: in one line that names it, without running or unpickling anything."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from helpers import contents, random_clip
from rvpt.artifacts import MANIFEST
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.formats.load import load_clip
from rvpt.models.formats.weights import PICKLES


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model on disk as others save it, without a manifest."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    random_clip(blocks=2).save_pretrained(folder)
    (folder / MANIFEST).unlink()
    return folder


@pytest.fixture
def suspect(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "suspect")


def refused(folder):
    """The one line with which a folder is refused; it is left as it was."""
    before = contents(folder.parent)
    with pytest.raises(RvptError) as refusal:
        load_clip(folder)
    assert contents(folder.parent) == before
    line = str(refusal.value)
    assert "\n" not in line
    return line


def edit_json(path, **changes):
    write_json(path, {**read_json(path), **changes})


def edit_weights(change):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def open_clip(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    write_json(folder / "open_clip_config.json", {"model_cfg": {"vision_cfg": {"layers": 12, "width": 64}}})


def open_clip_resnet(folder):
    open_clip(folder)
    config = {"vision_cfg": {"layers": [3, 4, 6, 3], "width": 64}, "text_cfg": {"layers": 2}}
    write_json(folder / "open_clip_config.json", {"model_cfg": config})


def timm_resnet(folder):
    write_json(folder / "config.json", {"architecture": "resnet50_clip", "num_classes": 1024})


def vision_only(folder):
    config = read_json(folder / "config.json")["vision_config"]
    write_json(folder / "config.json", {**config, "model_type": "clip_vision_model"})


def not_a_number(tensors):
    tensors["visual_projection.weight"][0, 0] = float("nan")


def without_a_block(tensors):
    for name in [name for name in tensors if "vision_model.encoder.layers.1." in name]:
        del tensors[name]


def other_projection(tensors):
    tensors["visual_projection.weight"] = torch.zeros(3, 3)


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def more_words(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{number}" for number in range(50)])
    tokenizer.save_pretrained(folder)


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def without(pattern):
    return lambda folder: [path.unlink() for path in folder.glob(pattern)]


def ends_with(eos):
    """A configuration that reads text features at another token."""

    def damage(folder):
        config = read_json(folder / "config.json")
        edit_json(folder / "config.json", text_config={**config["text_config"], "eos_token_id": eos})

    return damage


def endless(folder):
    edit_json(folder / "tokenizer.json", post_processor=None)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, ["no such model folder"]),
        (emptied, ["is empty"]),
        (open_clip, ["vision_cfg and text_cfg"]),
        (open_clip_resnet, ["read at the highest token"]),
        (timm_resnet, ["a model of timm, one tower of a CLIP"]),
        (without("config.json"), ["without config.json"]),
        (text("config.json", '{"model_type": "siglip", "vision_config": {}}'), ["one tower", "text_config is missing"]),
        (
            text("config.json", '{"model_type": "siglip", "vision_config": {}, "text_config": {}}'),
            ["of a 'siglip' model, its weights are of a ViT CLIP"],
        ),
        (text("config.json", '{"model_type": "siglip2"}'), ["a SigLIP 2", "only CLIPModel and SiglipModel"]),
        (text("config.json", "{"), ["config"]),
        (text("config.json", "[]"), ["config"]),
        (vision_only, ["one tower of a CLIP (clip_vision_model)"]),
        (without("model.safetensors"), ["no model.safetensors"]),
        (cut_weights, ["could not load its weights"]),
        (edit_weights(not_a_number), ["visual_projection.weight", "not finite"]),
        (edit_weights(without_a_block), ["16 weights", "vision_model.encoder.layers.1.layer_norm1.bias", "missing"]),
        (edit_weights(other_projection), ["visual_projection.weight", "another shape"]),
        (without("tokenizer*"), ["tokenizer has no words", "tokenizer.json"]),
        (more_words, ["tokenizer has", "do not belong together"]),
        (ends_with(3), ["read at token 3 (text_config.eos_token_id", "ends texts with 1", "set it to 1"]),
        (ends_with(None), ["read at token None", "set it to 1"]),
        (ends_with(2), ["read at token 2", "set it to 1"]),
        (endless, ["read at token 1", "download tokenizer.json again"]),
        (text("tokenizer.json", "{"), ["could not load its tokenizer"]),
        (text("preprocessor_config.json", "{"), ["preprocessor_config.json"]),
        (text("preprocessor_config.json", "[]"), ["preprocessor_config.json", "not the configuration"]),
        (text("preprocessor_config.json", '{"image_mean": 0.5}'), ["preprocessor_config.json", "three numbers"]),
        (text("preprocessor_config.json", '{"image_std": [1, 0, 1]}'), ["preprocessor_config.json", "above 0"]),
    ],
)
def test_a_folder_that_does_not_hold_a_clip_is_refused(suspect, damage, words):
    damage(suspect)
    line = refused(suspect)
    assert not [word for word in ("suspect", *words) if word not in line], line


@pytest.mark.parametrize("name", ["nobody", "./nothing", "/nothing", "a/b/c", "~/nothing"])
def test_a_model_that_does_not_exist_is_named(name):
    with pytest.raises(RvptError, match=f"{name}: no such model folder"):
        load_clip(name)


def test_a_model_that_is_not_on_the_hub_is_named():
    with pytest.raises(
        RvptError, match=r"nobody/nothing: no such folder here, and the hub cannot be asked \(HF_HUB_OFFLINE is set"
    ):
        load_clip("nobody/nothing")


def test_the_libraries_print_nothing_about_what_is_refused(suspect, capfd):
    edit_weights(lambda tensors: [without_a_block(tensors), other_projection(tensors)])(suspect)
    capfd.readouterr()
    refused(suspect)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", ['{"name": "a web page"}', "[]"])
def test_a_manifest_of_somebody_else_is_left_alone(suspect, content):
    (suspect / MANIFEST).write_text(content)
    assert load_clip(suspect).name == "suspect"


# Code of the folder, and pickles


@pytest.fixture
def own_code(suspect, tmp_path, monkeypatch):
    """A suspect whose folder brings code, of a kind of model that transformers does not have."""
    (suspect / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    edit_json(suspect / "config.json", model_type="some_clip", auto_map={"AutoConfig": "own.Own"})
    auto_map = {"AutoTokenizer": [None, "own.Own"]}
    edit_json(suspect / "tokenizer_config.json", tokenizer_class="Own", auto_map=auto_map)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return suspect


def test_a_models_own_code_is_never_run_nor_offered_to_be(own_code):
    assert "suspect needs its own code (auto_map: own.Own), which is never run" in refused(own_code)


def test_a_tokenizers_own_code_gives_way_to_the_class_of_transformers(own_code, tmp_path):
    edit_json(own_code / "config.json", model_type="clip")
    load_clip(own_code)
    assert not (tmp_path / "ran").exists()


class Payload:
    """Unpickling it creates the file `ran`."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place / "ran"), "w")


@pytest.fixture
def bomb(tmp_path):
    """bomb(path): a file of PyTorch's that does harm when it is unpickled, as it just did here."""

    def write(path):
        torch.save({"state_dict": Payload(tmp_path)}, path)
        torch.load(path, weights_only=False)["state_dict"].close()
        (tmp_path / "ran").unlink()

    return write


def test_the_payload_would_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path))).close()
    assert (tmp_path / "ran").exists()


def test_a_payload_in_pickled_weights_is_named_and_does_not_run(suspect, bomb, tmp_path):
    (suspect / "model.safetensors").unlink()
    bomb(suspect / "pytorch_model.bin")
    assert "pytorch_model.bin is not read: its pickle names io.open" in refused(suspect)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_not_read_where_the_safetensors_are_broken(suspect, bomb):
    cut_weights(suspect)
    bomb(suspect / "pytorch_model.bin")
    assert "could not load its weights" in refused(suspect)


def test_weights_of_another_name_are_not_guessed(suspect):
    (suspect / "model.safetensors").rename(suspect / "other.safetensors")
    assert "no model.safetensors: it has other.safetensors: give that file, or rename it" in refused(suspect)


@pytest.mark.parametrize("suffix", PICKLES)
def test_a_payload_in_a_file_is_named_and_does_not_run(tmp_path, bomb, suffix):
    bomb(tmp_path / f"model{suffix}")
    assert f"model{suffix} is not read: its pickle names io.open" in refused(tmp_path / f"model{suffix}")
    assert not (tmp_path / "ran").exists()


def test_another_file_is_not_a_model_either(tmp_path):
    (tmp_path / "model.txt").write_text(json.dumps({}))
    assert "model.txt is a file; give the model's folder" in refused(tmp_path / "model.txt")

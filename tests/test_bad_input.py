"""Every bad input is refused in one line that names it, with exit code 2, and nothing is written or run."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from commands import ATTACK, CLEAN, PRETRAIN, contents, images, refused, rvpt, works
from helpers import memory_data
from rvpt.attacks import make_trigger, trigger_spec
from rvpt.captioning import load_captioner
from rvpt.config import ContrastiveSpec, RVPTSpec
from rvpt.defenses import Cleaned, clean, load_model
from rvpt.errors import RvptError
from rvpt.evaluation import evaluate
from rvpt.loaders import PICKLES, load_clip
from rvpt.readers import load_data
from rvpt.store import MANIFEST, read_json, read_rows, write_json, write_manifest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty working directory, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def refuse(home):
    """refuse(*words) -> the one line of the error, after a look that everything is as it was."""

    def run(*words):
        before = contents(home)
        line = refused(*words)
        assert contents(home) == before
        return line

    return run


@pytest.fixture
def words_of(tiny):
    """words_of(command) -> the words of a command that works on the tiny artifacts and writes to `out`."""
    words = {
        "pretrain": ["pretrain", "--out", "out", *PRETRAIN],
        "attack": ["attack", tiny.clip, "--out", "out", *ATTACK],
        "clean": ["clean", tiny.backdoored, "--out", "out", *CLEAN],
        "evaluate": ["evaluate", tiny.clip, "--data", "scenes:10"],
    }
    return words.__getitem__


def has(line, *words):
    missing = [word for word in words if word not in line]
    assert not missing, line


# Options


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("clean", ["--lr", -1], ["lr", "greater than 0", "-1"]),
        ("clean", ["--lr", "nan"], ["lr", "nan"]),
        ("clean", ["--lr", "fast"], ["--lr", "valid number"]),
        ("clean", ["--lr", 1e30], ["loss became", "lower the learning rate (1e+30)"]),
        ("clean", ["--margin", 2], ["margin", "2"]),
        ("clean", ["--preset", "nope"], ["'nope'", "paper, small"]),
        ("clean", ["--augment", "nope"], ["augment", "'nope'", "crop-flip"]),
        ("clean", ["--precision", "nope"], ["precision", "'nope'", "bf16"]),
        ("clean", ["--first-block", 4], ["first_block 4", "0 to 3"]),
        ("clean", ["--depth", 5], ["depth 5", "4 blocks"]),
        ("clean", ["--depth", 1, "--depth-from", "side"], ["depth_from", "'side'", "input"]),
        ("clean", ["--without-class", "dog"], ["'dog'", "umbrella"]),
        ("clean", ["--split", "nope"], ["'nope'", "pretrain, train, test"]),
        ("clean", ["--shots", 900], ["900", "--shots"]),
        ("clean", ["--shots", 0], ["--shots", "rvpt clean --help"]),
        ("clean", ["--seed", 2**63], ["--seed"]),
        ("clean", ["--seed", -1], ["--seed"]),
        ("attack", ["--target", "dog"], ["'dog'", "umbrella"]),
        ("attack", ["--trigger", "nope"], ["'nope'", "badnet, blended"]),
        ("attack", ["--trigger", "badnet", "--trigger", "badnet"], ["two triggers of one name"]),
        ("attack", ["--trigger", "badnet:mode=nope"], ["mode", "'nope'", "fresh"]),
        ("attack", ["--trigger", "badnet:place=nope"], ["place", "'nope'", "middle"]),
        ("attack", ["--trigger", "badnet:ratio=0.1"], ["ratio", "no such setting", "size, place"]),
        ("attack", ["--trigger", "badnet:size"], ["badnet:size", "OPTION=VALUE"]),
        ("attack", ["--trigger", "wanet:strength=0"], ["strength", "greater than 0"]),
        ("attack", ["--n", 500], ["500 pairs", "'anchor'", "ask for fewer"]),
        ("attack", ["--poison-rate", 0.5], ["exactly one of n and poison_rate"]),
        ("attack", ["--pick", "nope"], ["pick", "'nope'", "boundary"]),
        ("attack", ["--disguise", "8"], ["disguise", "clean_label"]),
        ("attack", ["--pick", "boundary", "--clean-label"], ["clean_label", "'boundary'", "give one"]),
        ("attack", ["--pick", "boundary", "--n", 199], ["199 pairs", "not taken for it", "ask for fewer"]),
        ("attack", ["--preset", "nope"], ["'nope'", "paper, small"]),
        ("attack", ["--test-split", "nope"], ["'nope'", "pretrain, train, test"]),
        ("pretrain", ["--geometry", "foo"], ["--geometry foo", "NAME=VALUE"]),
        ("pretrain", ["--geometry", "foo=1"], ["foo"]),
        ("pretrain", ["--geometry", "width=wide"], ["width", "'wide'"]),
        ("pretrain", ["--geometry", "patch_size=7"], ["patch_size must divide image_size"]),
        ("pretrain", ["--patch-drop", 1], ["patch_drop", "1"]),
        ("pretrain", ["--data", "scenes:many"], ["scenes:many", "scenes:5000"]),
        ("pretrain", ["--data", "scenes:²"], ["scenes:²", "scenes:5000"]),
        ("pretrain", ["--geometry", "image_size=8"], ["image_size", "greater than or equal to 16"]),
        ("attack", ["--trigger", "blended:ratio=0"], ["ratio", "greater than 0"]),
        ("evaluate", ["--batch-size", 0], ["--batch-size", "rvpt evaluate --help"]),
        ("evaluate", ["--split", "nope"], ["'nope'", "pretrain, train, test"]),
        ("evaluate", ["--only-class", "dog"], ["no class 'dog'", "umbrella"]),
        ("evaluate", ["--only-class", "anchor"], ["no image of class 'anchor'"]),
        ("evaluate", ["--shift", "fog"], ["no shift 'fog'", "noise, blur, gray, sketch"]),
        ("evaluate", ["--protocol", "lookup"], ["no protocol 'lookup'", "classification, retrieval, "]),
        ("clean", ["--precision", "fp16"], ["fp16 needs a GPU", "bf16"]),
        ("attack", ["--trigger", "badnet:name=sig"], ["badnet:name=sig", "no option"]),
        ("attack", ["--trigger", "issba:secret=schlüssel"], ["secret", "'schlüssel'"]),
        ("evaluate", ["--protocol", "readability", "--split", "train"], ["split", "learns on train"]),
        ("clean", ["--depth-from", "input"], ["depth_from", "give depth too"]),
        ("clean", ["--defense", "par", "--shots", 4], ["par learns from captions", "leave --shots out"]),
        ("clean", ["--defense", "par", "--without-class", "sun"], ["leave --without-class out"]),
        ("clean", ["--pairs", 100], ["rvpt learns from labels", "leave --pairs out"]),
        ("clean", ["--defense", "probe", "--caption-column", "text"], ["leave --caption-column out"]),
        ("attack", ["--target", "lightnig"], ["no class 'lightnig'"]),
        ("attack", ["--trigger", "trojvqa:text_key=a{b"], ["text_key", "a{b"]),
        ("evaluate", ["--nope"], ["--nope", "rvpt evaluate --help"]),
    ],
)
def test_a_value_that_does_not_fit(refuse, words_of, command, options, words):
    has(refuse(*words_of(command), *options), *words)


def test_retrieval_without_captions(refuse, tiny, home):
    folder = images(home / "set")
    has(refuse("evaluate", tiny.clip, "--data", folder, "--protocol", "retrieval"), "set has no captions", "column")


def test_readability_without_attributes(refuse, tiny, home):
    folder = images(home / "set")
    has(refuse("evaluate", tiny.clip, "--data", folder, "--protocol", "readability"), "set has no attributes", "scenes")


def test_a_poison_rate_above_1(refuse, tiny):
    words = ["attack", tiny.clip, "--out", "out", "--data", "scenes:20", "--target", "anchor"]
    has(refuse(*words, "--poison-rate", 2), "poison_rate", "less than 1", "2.0")


@pytest.mark.parametrize(
    ("words", "named"),
    [(["nope"], "'nope'"), (["clean"], "'model'"), (["evaluate", "x"], "'--data'"), (["report"], "'rows'")],
)
def test_a_command_line_that_is_not_whole(refuse, words, named):
    has(refuse(*words).lower(), named, "--help")


# Models


def edit_json(path, **changes):
    write_json(path, {**json.loads(path.read_text()), **changes})


def edit_weights(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def flip(path):
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def open_clip(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    write_json(folder / "open_clip_config.json", {"model_cfg": {"vision_cfg": {"layers": 12, "width": 64}}})


def open_clip_resnet(folder):
    open_clip(folder)
    write_json(folder / "open_clip_config.json", {"model_cfg": {"vision_cfg": {"layers": [3, 4, 6, 3], "width": 64}}})


def timm_resnet(folder):
    write_json(folder / "config.json", {"architecture": "resnet50_clip", "num_classes": 1024})


def vision_only(folder):
    config = json.loads((folder / "config.json").read_text())["vision_config"]
    write_json(folder / "config.json", {**config, "model_type": "clip_vision_model"})


def not_a_number(tensors):
    tensors["visual_projection.weight"][0, 0] = float("nan")


def without_a_block(tensors):
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]


def other_projection(tensors):
    tensors["visual_projection.weight"] = torch.zeros(3, 3)


def weights(change):
    return lambda folder: edit_weights(folder / "model.safetensors", change)


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def with_words(folder):
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
        config = json.loads((folder / "config.json").read_text())
        edit_json(folder / "config.json", text_config={**config["text_config"], "eos_token_id": eos})

    return damage


def endless(folder):
    edit_json(folder / "tokenizer.json", post_processor=None)


def moved(folder):
    folder.rename(folder.with_name("elsewhere"))


@pytest.fixture
def own_code(tiny, home, monkeypatch):
    """A suspect whose folder brings code, of a kind of model that transformers does not know."""
    shutil.copytree(tiny.clip, home / "suspect")
    (home / "suspect" / MANIFEST).unlink()
    (home / "suspect" / "own.py").write_text(f"open({str(home / 'ran')!r}, 'w')\nclass Own: pass\n")
    edit_json(home / "suspect" / "config.json", model_type="some_clip", auto_map={"AutoConfig": "own.Own"})
    auto_map = {"AutoTokenizer": [None, "own.Own"]}
    edit_json(home / "suspect" / "tokenizer_config.json", tokenizer_class="Own", auto_map=auto_map)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return "suspect"


def test_a_captioners_own_code_is_never_run_nor_asked_about(home, own_code, monkeypatch):
    monkeypatch.setattr("transformers.LlavaForConditionalGeneration.from_pretrained", lambda *_, **__: None)
    with pytest.raises(RvptError, match=r"own code \(auto_map\), which is never run"):
        load_captioner(own_code)
    assert not (home / "ran").exists()


def test_a_model_that_was_changed_since_it_was_backdoored(refuse, tiny, home):
    shutil.copytree(tiny.backdoored, home / "suspect")
    flip(home / "suspect" / "model.safetensors")
    line = refuse("evaluate", "suspect", "--data", "scenes:10")
    has(line, "suspect/model.safetensors was changed since it was made")


def test_cleaning_refuses_a_changed_model_too(refuse, tiny, home):
    shutil.copytree(tiny.backdoored, home / "suspect")
    flip(home / "suspect" / "model.safetensors")
    has(refuse("clean", "suspect", "--out", "out", *CLEAN), "suspect/model.safetensors was changed since it was made")


def test_a_spec_that_was_edited_by_hand(refuse, tiny, home):
    shutil.copytree(tiny.backdoored, home / "suspect")
    manifest = read_json(home / "suspect" / MANIFEST)
    write_json(home / "suspect" / MANIFEST, {**manifest, "spec": "nothing"})
    has(refuse("evaluate", "suspect", "--data", "scenes:10"), "spec", "'nothing'")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory(refuse, tiny, monkeypatch, error):
    def full(*args, **options):
        raise error

    monkeypatch.setattr("rvpt.jobs.protocols.measure", full)
    has(refuse("evaluate", tiny.backdoored, "--data", "scenes:10"), "out of memory", "--batch-size")


@pytest.mark.parametrize("name", ["nobody", "nobody/nothing", "./nothing", "/nothing", "a/b/c"])
def test_a_model_that_is_nowhere(refuse, name):
    has(refuse("evaluate", name, "--data", "scenes:10"), name)


def test_an_adapter_is_no_model_to_clean(refuse, tiny):
    has(refuse("clean", tiny.cleaned, "--out", "out", *CLEAN), str(tiny.cleaned), "an adapter")


class Payload:
    """Unpickling it makes the file `ran`."""

    def __reduce__(self):
        return open, ("ran", "w")


@pytest.fixture
def bomb(home):
    """bomb(path): a file of PyTorch's that does harm when it is loaded, as it just did here."""

    def write(path):
        torch.save({"state_dict": Payload()}, path)
        torch.load(path, weights_only=False)["state_dict"].close()
        (home / "ran").unlink()

    return write


def test_pickles_are_neither_triggers_nor_adapters_nor_rows(refuse, tiny, home, bomb):
    bomb(home / "x.pt")
    has(refuse("evaluate", tiny.clip, "--data", "scenes:10", "--trigger", "x.pt"), "x.pt")
    has(refuse("evaluate", tiny.clip, "--data", "x.pt"), "x.pt")
    has(refuse("report", "x.pt"), "x.pt, line 1")
    shutil.copytree(tiny.cleaned, home / "adapter")
    shutil.move(home / "x.pt", home / "adapter" / "adapter_model.safetensors")
    write_manifest(home / "adapter", "cleaned", spec={})
    has(refuse("evaluate", "adapter", "--data", "scenes:10"), "adapter_model.safetensors is not a whole safetensors")


# Adapters and triggers


@pytest.fixture
def adapter(tiny, home):
    return shutil.copytree(tiny.cleaned, home / "adapter")


def test_weights_of_their_own_from_another_model(refuse, tiny, home):
    words = ["--data", "scenes:500", "--shots", 1, "--epochs", 1]
    works("clean", tiny.backdoored, "--out", "cleaned", *words, "--defense", "finetune")
    line = refuse("evaluate", "cleaned", "--data", "scenes:10", "--base", tiny.clip)
    has(line, "cleaned cleans another model than clip", "--base")
    suspect = load_model(tiny.backdoored)
    assert Cleaned.from_pretrained("cleaned", suspect).facts["base_model"] == suspect.source


@pytest.mark.parametrize("defense", ["rvpt:length=2,first_block=2", "finetune"])  # an adapter, and own weights
def test_a_model_whose_suspect_moved_and_base_says_where_to(refuse, tiny, home, defense, monkeypatch):
    shutil.copytree(tiny.backdoored, home / "before")
    words = ["--data", "scenes:500", "--shots", 1, "--epochs", 1]
    works("clean", "before", "--out", "cleaned", *words, "--defense", defense)
    (home / "before").rename(home / "after")
    has(refuse("evaluate", "cleaned", "--data", "scenes:10"), "before", "cleaned", "--base")
    rows = json.loads(works("evaluate", "cleaned", "--base", "after", "--data", "scenes:10", "--json"))
    assert {row["attack"] for row in rows} == {"none", "badnet", "blended"}
    (home / "cleaned").rename(home / "after" / "moved")
    here = load_model("after/moved", "after")
    here.save_pretrained("copy")  # knows where the base is now
    assert load_model("copy").hash() == here.hash()
    assert read_json(home / "copy" / "manifest.json")["base_model"] == str(home / "after")
    monkeypatch.chdir("after")  # a base is seen from here, not from the adapter's folder
    assert load_model("../after/moved", ".").hash() == here.hash()


def test_weights_of_their_own_without_their_suspect_are_measured_under_triggers_that_are_given(refuse, tiny, home):
    shutil.copytree(tiny.backdoored, home / "before")
    words = ["--data", "scenes:500", "--shots", 1, "--epochs", 1]
    works("clean", "before", "--out", "cleaned", *words, "--defense", "finetune")
    shutil.rmtree(home / "before")
    trigger = tiny.backdoored / "triggers" / "badnet"
    rows = json.loads(
        works("evaluate", "cleaned", "--data", "scenes:500", "--limit", 8, "--trigger", trigger, "--json")
    )
    assert {(row["model"], row["attack"]) for row in rows} == {("before", "none"), ("before", "badnet")}
    has(refuse("evaluate", "cleaned", "--data", "scenes:500"), "before", "is gone", "--base")


def test_a_target_for_triggers_with_several(refuse, tiny, home):
    words = ["attack", tiny.clip, "--out", "two", "--data", "scenes:200", "--test", "scenes:48", "--target", "anchor"]
    works(*words, "--epochs", 1, "--n", 5, "--trigger", "badnet", "--trigger", "blended:target=umbrella")
    line = refuse("evaluate", "two", "--data", "scenes:48", "--target", "heart")
    has(line, "several targets (anchor, umbrella)", "--target")


def test_two_triggers_of_one_name(refuse, tiny, home):
    for folder in ("a", "b"):
        shutil.copytree(tiny.backdoored / "triggers" / "badnet", home / folder / "badnet")
    line = refuse("evaluate", tiny.clip, "--data", "scenes:10", "--trigger", "a/badnet", "--trigger", "b/badnet")
    has(line, "two trigger folders of one name", "rename")


def test_a_trigger_for_a_protocol_that_shows_none(refuse, tiny):
    trigger = tiny.backdoored / "triggers" / "badnet"
    line = refuse("evaluate", tiny.clip, "--data", "scenes:10", "--protocol", "adversarial", "--trigger", trigger)
    has(line, "adversarial", "--trigger")


def change_manifest(**changes):
    return lambda folder: edit_json(folder / MANIFEST, **changes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, ["no rvpt artifact"]),
        (lambda folder: flip(folder / "trigger.safetensors"), ["trigger.safetensors was changed"]),
        (without("trigger.safetensors"), ["trigger.safetensors is missing"]),
        (without(MANIFEST), ["no manifest.json"]),
        (text(MANIFEST, "{"), ["manifest.json cannot be read"]),
        (text(MANIFEST, "[]"), ["manifest"]),
        (change_manifest(kind="clip"), ["holds a clip, a trigger is needed"]),
        (change_manifest(spec={"name": "ghost", "target": "star"}), ["unknown trigger 'ghost'", "badnet"]),
        (change_manifest(spec=["badnet"]), ["unknown trigger None"]),
        (change_manifest(spec={"name": ["badnet"]}), ["unknown trigger ['badnet']"]),
        (change_manifest(image_size=None), ["made for images of NonexNone"]),
        (change_manifest(image_size="48"), ["made for images of 48x48"]),
    ],
)
def test_a_folder_that_is_no_trigger(refuse, tiny, home, damage, words):
    shutil.copytree(tiny.backdoored / "triggers" / "badnet", home / "trigger")
    damage(home / "trigger")
    has(refuse("evaluate", tiny.clip, "--data", "scenes:10", "--trigger", "trigger"), "trigger", *words)


def test_a_trigger_of_another_size(refuse, tiny, home):
    make_trigger(trigger_spec("blended", target="star"), 32).save(home / "trigger")
    line = refuse("evaluate", tiny.clip, "--data", "scenes:10", "--trigger", "trigger")
    has(line, "trigger was made for images of 32x32", "48x48")


def test_a_trigger_whose_target_the_data_have_not(refuse, tiny, home):
    images(home / "set")
    has(refuse("evaluate", tiny.backdoored, "--data", "set"), "'anchor'", "cat, dog")
    has(refuse("evaluate", tiny.backdoored, "--data", "set", "--target", "owl"), "'owl'", "cat, dog")


# Data


def no_image(path):
    path.write_text("no image")


def cut_image(path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-900])


@pytest.mark.parametrize("name", ["nothing", "./nothing", "/nothing", "a/b/c", "nobody/nothing"])
def test_data_that_are_nowhere(refuse, tiny, name):
    has(refuse("evaluate", tiny.clip, "--data", name), name)


PAR = ["--data", "set", "--out", "out", "--defense", "par"]
CLEAN_SET = ["--data", "set", "--out", "out", "--epochs", 1, "--length", 1]


def test_too_few_images_or_classes(refuse, tiny, home):
    images(home / "set", "train", n=3)
    words = ["clean", tiny.clip, *CLEAN_SET, "--shots"]
    has(refuse(*words, 4), "'cat' has 3 images", "--shots 3")
    has(refuse(*words, 1, "--without-class", "cat"), "set", "1 class", "at least two")
    has(refuse(*words, 1, "--without-class", "cat", "--without-class", "dog"), "set has no images left")
    has(refuse(*words, 1, "--without-class", "owl"), "'owl'", "cat, dog")


def test_data_without_labels(refuse, tiny, home):
    (home / "set").mkdir()
    for number in range(3):
        Image.new("RGB", (20, 30)).save(home / "set" / f"{number}.png")
    attack = ["attack", tiny.clip, "--target", "anchor", "--out", "out", "--data"]
    for words in (
        ["evaluate", tiny.clip, "--data", "set", "--split", "train"],
        ["clean", tiny.clip, *CLEAN_SET],
        [*attack, "scenes:50", "--test", "set", "--test-split", "train"],
    ):
        has(refuse(*words), "set has no class labels")
    pretrain = ["pretrain", "--data", "set", "--out", "out"]
    for words in (pretrain, ["clean", tiny.clip, *PAR], [*attack, "set", "--test", "scenes:10"]):
        has(refuse(*words), "set has neither captions nor class labels: --caption-column")


def test_the_test_data_are_looked_at_before_the_training(refuse, home, monkeypatch):
    parquet(home / "set", number=[1, 2])
    monkeypatch.setattr("rvpt.jobs.training.pretrain", lambda *_, **__: pytest.fail("trained"))
    has(refuse("pretrain", "--out", "out", *PRETRAIN, "--test", "set"), "set has no class labels")
    images(home / "torn")
    torn = next((home / "torn").rglob("*.png"))
    torn.write_bytes(torn.read_bytes()[:40])
    has(refuse("pretrain", "--out", "out", *PRETRAIN, "--test", "torn"), torn.name, "cannot be read")


def parquet(folder, **columns):
    """Images with more columns, as a set of the hub looks on disk."""
    import datasets

    n = len(next(iter(columns.values())))
    dataset = datasets.Dataset.from_dict({"image": [Image.new("RGB", (9, 9))] * n, **columns})
    dataset = dataset.cast_column("image", datasets.Image())
    if "label" in columns:
        dataset = dataset.cast_column("label", datasets.ClassLabel(names=["cat", "dog"]))
    (folder / "data").mkdir(parents=True)
    dataset.to_parquet(folder / "data" / "test-00000-of-00001.parquet")


def test_data_without_captions_get_templates_and_a_column_that_is_not_there_is_said(refuse, tiny, home):
    images(home / "set", "train", n=8)
    images(home / "set")
    words = ["attack", tiny.clip, "--data", "set", "--target", "dog", "--n", 4, "--epochs", 1, "--out", "out"]
    has(refuse(*words, "--caption-column", "words"), "'words'", "image, label")
    works(*words)
    changes = read_rows(home / "out" / "poison.jsonl")
    assert len(changes) == 4
    assert all("a photo of a cat." in change["before"] and "dog" in change["after"][0] for change in changes)


# Places to write to


def file(path):
    path.write_text("mine")


def full_folder(path):
    path.mkdir()
    file(path / "mine")


@pytest.mark.parametrize("command", ["pretrain", "attack", "clean"])
@pytest.mark.parametrize(("block", "word"), [(file, "is a file"), (full_folder, "--force")])
def test_a_place_that_is_taken(refuse, words_of, home, command, block, word):
    block(home / "out")
    has(refuse(*words_of(command)), "out", word)


@pytest.mark.parametrize("command", ["pretrain", "attack", "clean"])
def test_a_place_that_cannot_be_is_refused_before_the_work(refuse, words_of, home, monkeypatch, command):
    file(home / "file")
    monkeypatch.setattr("rvpt.train.fit", lambda *_, **__: pytest.fail("trained"))
    has(refuse(*words_of(command), "--out", "file/out"), "file/out")


FULL = OSError(errno.ENOSPC, "No space left on device")


def fail(error):
    def raising(*_, **__):
        raise error

    return raising


@pytest.mark.parametrize("command", ["pretrain", "attack", "clean"])
def test_a_disk_that_is_full_at_the_end(refuse, words_of, monkeypatch, command):
    monkeypatch.setattr("rvpt.store._replace", fail(FULL))
    has(refuse(*words_of(command)), "no space left to write", "out", "free some")


def test_safetensors_own_error_for_a_full_disk(refuse, words_of, monkeypatch):
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    monkeypatch.setattr("rvpt.store.save_file", fail(error))
    has(refuse(*words_of("clean")), "could not write out", "No space left", "Free some space")


def measured_but_not_written(*words):
    """What was measured is shown though its rows find no place, which is said."""
    result = rvpt(*words)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    has(result.stderr, "error: no space left to write", str(words[-1]))
    has(result.stdout, "CA")


def test_rows_that_do_not_fit_on_the_disk_are_not_half_written(words_of, home, monkeypatch):
    works(*words_of("evaluate"), "--rows", "rows.jsonl")
    opened = Path.open

    def small(self, *args, **options):
        stream = opened(self, *args, **options)
        write = stream.write

        def half(text):
            write(text[: len(text) // 2])
            stream.flush()
            raise FULL

        stream.write = half
        return stream

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", small)
        for name in ("rows.jsonl", "new.jsonl"):
            before = contents(home)
            measured_but_not_written(*words_of("evaluate"), "--rows", name)
            assert contents(home) == before


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_rows_on_a_device_that_is_full(words_of):
    measured_but_not_written(*words_of("evaluate"), "--rows", "/dev/full")


def test_rows_that_cannot_be_written(refuse, words_of, home):
    (home / "folder").mkdir()
    for command in ("evaluate", "attack"):
        has(refuse(*words_of(command), "--rows", "folder"), "folder is a folder, a file is needed")
    file(home / "file")
    has(refuse(*words_of("evaluate"), "--rows", "file/rows.jsonl"), "file/rows.jsonl cannot be made")


# Rows


ROW = {"model": "m", "data": "d", "attack": "none", "defense": "none", "seed": 0, "metric": "CA", "rate": 0.5}
LINE = json.dumps(ROW)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{LINE}\n{LINE[:-9]}\n", ["line 2", "not a JSON object"]),
        (f"{LINE}\n[]\n", ["line 2", "not a JSON object"]),
        ("\xff\xfe", ["line 1", "not a JSON object"]),
        (json.dumps({**ROW, "metric": "PA"}).replace("rate", "share"), ["line 1", "'rate'"]),
        ("", ["no rows"]),
    ],
)
def test_rows_that_are_damaged(refuse, home, content, words):
    (home / "rows.jsonl").write_bytes(content.encode("latin-1"))
    has(refuse("report", "rows.jsonl"), "rows.jsonl", *words)


def test_rows_that_are_nowhere(refuse, home):
    (home / "folder").mkdir()
    for name in ("nothing.jsonl", "folder"):
        has(refuse("report", name), name)


def test_a_page_that_cannot_be_written(refuse, home):
    (home / "rows.jsonl").write_text(LINE + "\n")
    (home / "folder").mkdir()
    for name in ("folder", "rows.jsonl/page.md"):
        has(refuse("report", "rows.jsonl", "--out", name), f"could not write {name}")


# What the libraries say


MANY = """
import json, sys
from rvpt.cli import app
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as end:
        print(end.code)
"""


def test_the_libraries_add_nothing_to_the_one_line(tiny, home):
    for name, change in (("short", without_a_block), ("odd", other_projection)):
        shutil.copytree(tiny.clip, home / name)
        edit_weights(home / name / "model.safetensors", change)
    cut_image(images(home / "set") / "test" / "cat" / "1.png")
    commands = [
        ["evaluate", "short", "--data", "scenes:10"],
        ["evaluate", "odd", "--data", "scenes:10"],
        ["evaluate", str(tiny.clip), "--data", "set"],
        ["clean", str(tiny.clip), "--out", "out", *map(str, CLEAN), "--lr", "1e30"],
    ]
    env = {**os.environ, "HF_HOME": str(home / "cache")}
    code = [sys.executable, "-c", MANY, json.dumps(commands)]
    result = subprocess.run(code, capture_output=True, text=True, env=env, check=True)
    assert result.stdout.split() == ["2"] * len(commands)
    lines = result.stderr.splitlines()
    assert len(lines) == len(commands), result.stderr
    for line, word in zip(lines, ("short", "odd", "set", "learning rate"), strict=True):
        has(line, "error: ", word)


# Answers that would be wrong


def test_features_that_are_not_finite_are_no_answer(tiny):
    clip = load_clip(tiny.clip)
    with torch.no_grad():
        clip.vision.post_layernorm.weight.fill_(3e38)
    with pytest.raises(RvptError, match="its features are not finite"):
        evaluate(clip, load_data("scenes:10", "test"))


def test_in_python_too_it_is_said_what_is_missing(clip, scenes):
    captioned = memory_data(2, captions=[["a"], ["b"]])
    with pytest.raises(RvptError, match="memory has no class labels"):
        evaluate(clip, captioned)
    with pytest.raises(RvptError, match="Cleaned is no Clip: give the suspect model itself"):
        clean(Cleaned(clip), scenes)
    with pytest.raises(RvptError, match="memory has no images to learn from"):
        clean(clip, memory_data(0, captions=[]), ContrastiveSpec())


def test_a_target_that_no_trigger_has_is_refused(refuse, tiny):
    has(refuse("evaluate", tiny.clip, "--data", "scenes:10", "--target", "zebra"), "no trigger", "--target")


def test_an_option_given_twice_is_refused(refuse, tiny):
    words = ["clean", tiny.clip, "--data", "scenes:100", "--out", "out", "--alpha", 2, "--defense", "rvpt:alpha=1"]
    has(refuse(*words), "alpha is given behind the defense's name and as an option")


def test_what_a_command_has_an_option_for_is_refused_behind_a_defenses_name(refuse, tiny):
    words = ["clean", tiny.clip, *CLEAN, "--out", "out", "--defense"]
    has(refuse(*words, "rvpt:seed=3"), "give it as --seed")
    has(refuse(*words, "rvpt:precision=bf16"), "give it as --precision")


def test_the_folder_that_one_is_in_is_not_replaced(refuse, tiny):
    has(refuse("clean", tiny.clip, *CLEAN, "--out", "."), "the folder that you are in", "--out")


def test_force_does_not_replace_the_model_that_is_read(refuse, tiny):
    has(refuse("clean", tiny.backdoored, *CLEAN, "--out", tiny.backdoored, "--force"), "which is read")

"""Configurations that are damaged, or of other models: each is refused in one line that says what it is."""

import json
import random

import pytest

from helpers import random_clip
from openai_layout import open_clip_config, random_weights, write_tokenizer
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.formats.load import load_clip
from rvpt.tensors import write_tensors

OTHERS = {
    "clip_vision_model": "one tower of a CLIP (clip_vision_model)",
    "clip_text_model": "one tower of a CLIP (clip_text_model)",
    "siglip_vision_model": "one tower of a CLIP (siglip_vision_model)",
    "siglip2": "a SigLIP 2 for images of any shape",
    "chinese_clip": "a CLIP with a text tower of BERT",
    "altclip": "a CLIP with a text tower of XLM-R",
    "clipseg": "a CLIP that segments images",
    "blip": "a BLIP, which is not a CLIP",
    "blip-2": "a BLIP-2",
    "llava": "a LLaVA: give the CLIP",
    "vision-text-dual-encoder": "two towers of any kinds",
    "metaclip_2": "of a 'metaclip_2' model",
    "owlvit": "of a 'owlvit' model",
    "bert": "of a 'bert' model",
    None: "of a 'None' model",
    3: "of a '3' model",
    ("clip",): "of a \"['clip']\" model",
    "x" * 999: "of a 'xxx",
}
VALUES = [
    None, True, 0, -1, 3, 0.5, 1e30, float("nan"), 2**70, "", "x", "768", [], [1, 2], {}, {"a": 1}, [None], "a\nb",
]  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small model of transformers."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    random_clip(width=16, blocks=1, text_width=16).save_pretrained(folder)
    (folder / "manifest.json").unlink()
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A small model of open_clip."""
    folder = write_tokenizer(tmp_path_factory.mktemp("opened") / "model")
    write_tensors(folder / "open_clip_model.safetensors", random_weights())
    write_json(folder / "open_clip_config.json", open_clip_config(mean=[0.5] * 3, resize_mode="shortest"))
    return folder


def copied(folder, target, name, content):
    """A folder with the same files, one of them with another content."""
    target.mkdir()
    for file in folder.iterdir():
        if file.name != name:
            (target / file.name).hardlink_to(file)
    (target / name).write_text(json.dumps(content))
    return target


def refusal(folder):
    with pytest.raises(RvptError) as found:
        load_clip(folder)
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: str(kind)[:20])
def test_another_model_is_named(plain, tmp_path, kind):
    kind, words = (list(kind) if isinstance(kind, tuple) else kind), OTHERS[kind]
    found = refusal(copied(plain, tmp_path / "x", "config.json", {"model_type": kind, "vision_config": {}}))
    assert words in found
    assert len(found) < 500


@pytest.mark.parametrize("name", ["CLIPForImageClassification", "CLIPVisionModelWithProjection", "SiglipTextModel"])
def test_a_part_of_a_clip_is_named_by_its_class(plain, tmp_path, name):
    config = {**read_json(plain / "config.json"), "architectures": [name]}
    assert f"is a {name}, one tower of a CLIP" in refusal(copied(plain, tmp_path / "x", "config.json", config))


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
@pytest.mark.parametrize("value", [None, [], 3, "x"], ids=str)
def test_a_tower_alone_is_named(plain, tmp_path, tower, value):
    config = {**read_json(plain / "config.json"), tower: value}
    assert "is one tower of a CLIP" in refusal(copied(plain, tmp_path / "x", "config.json", config))


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
@pytest.mark.parametrize("value", [0, -1, 2**70, 1.5, True, None, "32", [32], {"a": 1}, float("nan")], ids=str)
def test_a_size_that_is_none_is_named(plain, tmp_path, tower, value):
    config = read_json(plain / "config.json")
    key = {"vision_config": "image_size", "text_config": "max_position_embeddings"}[tower]
    config = {**config, tower: {**config[tower], key: value}}
    found = refusal(copied(plain, tmp_path / "x", "config.json", config))
    assert f"could not use its config ({tower} has {key}=" in found


def test_texts_of_absurd_length_are_refused_before_one_is_made(plain, tmp_path):
    config = read_json(plain / "config.json")
    config["text_config"]["max_position_embeddings"] = 10**10
    assert "longer than any CLIP's" in refusal(copied(plain, tmp_path / "x", "config.json", config))


def places(value, above=()):
    """Where values are in nested records and lists."""
    if above:
        yield above
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*above, key))


def damaged(content, draw):
    """The content with some values replaced or taken out."""
    content = json.loads(json.dumps(content))
    for _ in range(draw.choice([1, 1, 2, 3])):
        *above, last = draw.choice(list(places(content)) or [("x",)])
        part = content
        for key in above:
            part = part[key]
        if draw.random() < 0.3 and isinstance(part, dict):
            part.pop(last, None)
        else:
            part[last] = draw.choice(VALUES)
    return content


def outcome(folder):
    """What refuses a model, or "loaded"."""
    try:
        load_clip(folder)
    except RvptError as error:
        return str(error)
    return "loaded"


def try_damaged(plain, opened, tmp_path, numbers):
    """Load models with one damaged configuration each: they load, or are refused in one line."""
    files = [(plain, name) for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json")]
    refused = 0
    for number in numbers:
        draw = random.Random(number)
        folder, name = draw.choice([*files, (opened, "open_clip_config.json"), (opened, "tokenizer_config.json")])
        content = damaged(read_json(folder / name), draw)
        place = copied(folder, tmp_path / str(number), name, content)
        found = outcome(place)
        refused += found != "loaded"
        assert "\n" not in found
        assert len(found) < 600
    return refused


def test_damaged_configurations_are_refused_in_one_line(plain, opened, tmp_path):
    assert try_damaged(plain, opened, tmp_path, range(20)) > 5


@pytest.mark.slow
def test_many_damaged_configurations_are_refused_in_one_line(plain, opened, tmp_path):
    assert try_damaged(plain, opened, tmp_path, range(20, 1000)) > 300

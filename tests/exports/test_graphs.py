"""The formats of graphs: programs of torch.export, and ONNX where its extra is installed."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from exported import sorts_of_models
from helpers import random_clip, random_pixels
from rvpt.artifacts import read_manifest
from rvpt.errors import RvptError
from rvpt.exports import EXPORTS
from rvpt.exports.base import TOLERANCE, largest_difference, outputs_of
from rvpt.exports.save import export
from rvpt.models.cleaned import clip_of

SORTS = ("prompted", "tuned with a head")
TEXTS = (["a"], ["a red fox on a very long green line", "x", "owl"])
PIXELS = {count: random_pixels(count, 48, seed=count) for count in (1, 2, 7)}


@pytest.fixture(scope="session")
def models():
    return sorts_of_models(random_clip())


@pytest.fixture(scope="session")
def programs(models, tmp_path_factory):
    """The folder of each sort, exported once."""
    home = tmp_path_factory.mktemp("programs")
    for sort in SORTS:
        export(models[sort], "torch", home / sort)
    return home


def probabilities(model, pixels):
    """What a model with a head computes, from its public parts."""
    return (model.logit_scale * model.encode_image(pixels) @ model.class_features(["fox", "owl", "cat"]).T).softmax(1)


def test_the_batch_of_a_program_is_free(models, programs):
    model, folder = models["prompted"], programs / "prompted"
    image, text = (torch.export.load(folder / f"{tower}.pt2").module() for tower in ("image", "text"))
    for pixels in PIXELS.values():
        torch.testing.assert_close(image(model.clip.normalize(pixels)), model.encode_image(pixels), atol=1e-5, rtol=0)
    for texts in TEXTS:
        torch.testing.assert_close(text(model.clip.tokenize(texts)), model.encode_text(texts), atol=1e-5, rtol=0)


def test_a_head_becomes_part_of_the_program(models, programs):
    model, folder = models["tuned with a head"], programs / "tuned with a head"
    assert not (folder / "text.pt2").exists()
    assert json.loads((folder / "towers.json").read_text())["classes"] == ["fox", "owl", "cat"]
    image = torch.export.load(folder / "image.pt2").module()
    slow = probabilities(model, PIXELS[7])
    torch.testing.assert_close(image(model.clip.normalize(PIXELS[7])), slow, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_program_needs_nothing_of_rvpt(models, programs):
    """In a process that cannot import rvpt or transformers."""
    model, folder = models["prompted"], programs / "prompted"
    torch.save(model.clip.normalize(PIXELS[2]), folder.parent / "pixels.pt")
    code = f"""
import sys
sys.modules["rvpt"] = sys.modules["transformers"] = None
import torch
result = torch.export.load({str(folder / "image.pt2")!r}).module()(torch.load({str(folder.parent / "pixels.pt")!r}))
print(result.flatten().tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = torch.tensor(json.loads(done.stdout.splitlines()[-1])).view(2, -1)
    torch.testing.assert_close(found, model.encode_image(PIXELS[2]), atol=1e-5, rtol=0)


def test_the_scale_of_the_logits_is_stored(models, programs):
    facts = json.loads((programs / "prompted" / "towers.json").read_text())
    assert facts == {"gives": "image_embeds", "logit_scale": pytest.approx(models["prompted"].logit_scale.item())}


def test_without_the_extra_the_message_says_what_to_install(models, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RvptError, match=r"pip install 'rvpt\[onnx\]'"):
        export(models["prompted"], "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "onnx"])
@pytest.mark.parametrize("sort", ["plain", "prompted", "tuned", "tuned and prompted", "probed", "tuned with a head"])
def test_every_sort_of_model_becomes_graphs(name, sort, models, tmp_path):
    pytest.importorskip("onnxruntime")
    model = models[sort]
    export(model, name, tmp_path / "out")
    clip = clip_of(model)
    for pixels, texts in zip(PIXELS.values(), [*TEXTS, TEXTS[0]], strict=True):
        inputs = {"pixel_values": clip.normalize(pixels), "input_ids": clip.tokenize(texts)}
        found = EXPORTS[name].run(tmp_path / "out", inputs)
        assert largest_difference(found, outputs_of(model, inputs)) < TOLERANCE


@pytest.mark.slow
def test_onnx_states_its_libraries_and_names(models, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = models["prompted"]
    export(model, "onnx", tmp_path / "out")
    assert set(read_manifest(tmp_path / "out")["libraries"]) == {"onnx", "onnxruntime", "transformers"}
    session = runtime.InferenceSession(tmp_path / "out" / "image.onnx", providers=["CPUExecutionProvider"])
    (asked,), (given,) = session.get_inputs(), session.get_outputs()
    assert (asked.name, given.name) == ("pixel_values", "image_embeds")
    assert asked.shape[1:] == [3, 48, 48]
    assert isinstance(asked.shape[0], str)
    (result,) = session.run(None, {"pixel_values": model.clip.normalize(PIXELS[7]).numpy()})
    np.testing.assert_allclose(result, model.encode_image(PIXELS[7]).detach().numpy(), atol=1e-4)


def test_a_card_speaks_of_prompts_only_where_there_are_some(models, programs):
    said = {sort: "with the prompts built in" in (programs / sort / "README.md").read_text() for sort in SORTS}
    assert (
        said == {sort: bool(models[sort].prompts) for sort in SORTS} == {"prompted": True, "tuned with a head": False}
    )

"""The examples that use exported models, on small random models."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import rvpt
from exported import openai_clip, prompts_for
from helpers import random_image
from rvpt.data.preprocess import ImageSize, Resizing, to_pixels
from rvpt.exports.save import export
from rvpt.models.cleaned import Cleaned
from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.formats.write_preprocessing import as_transformers

EXAMPLES = Path(__file__).parent.parent / "examples"
CLASSES = ["owl", "fox"]


@pytest.fixture
def images(tmp_path):
    """Two image files."""
    for number, size in enumerate([(60, 50), (48, 70)]):
        random_image(*size, seed=number).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(2)]


@pytest.fixture
def cleaned(clip, tmp_path):
    """A cleaned model whose base model is on disk."""
    clip.save_pretrained(tmp_path / "clip")
    base = rvpt.load(tmp_path / "clip")
    return Cleaned(base, prompts_for(base))


def run(script, *arguments):
    runpy.run_path(str(EXAMPLES / script))["main"]([str(argument) for argument in arguments])


def lines_of(model, images):
    """What the examples print, by rvpt's own classifier."""
    found = rvpt.Classifier(model, CLASSES)([Image.open(path) for path in images])
    best = found.max(1)
    return [
        (path, CLASSES[i], p) for path, i, p in zip(images, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def check(printed, expected, tolerance):
    lines = [line.rpartition(": ") for line in printed.splitlines()]
    for (path, _, answer), (wanted, name, probability) in zip(lines, expected, strict=True):
        assert path == wanted
        assert answer.split()[0] == name
        assert float(answer.split()[1]) == pytest.approx(probability, abs=tolerance)


def test_the_zero_shot_pipeline_of_transformers(cleaned, images, tmp_path, capsys):
    export(cleaned, "hf", tmp_path / "exported")
    capsys.readouterr()
    run("zero_shot_pipeline.py", "--model", tmp_path / "exported", "--classes", *CLASSES, "--images", *images)
    printed = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[0] for line in printed] == images
    assert all(line.rpartition(": ")[2].split()[0] in CLASSES for line in printed)


def test_a_vision_tower_for_llava(cleaned, tmp_path, capsys):
    cleaned.save_pretrained(tmp_path / "cleaned")
    run("llava_vision_tower.py", "--cleaned", tmp_path / "cleaned")
    difference, logits = capsys.readouterr().out.splitlines()
    assert float(difference.rpartition(": ")[2]) < 1e-5
    assert logits.endswith("(2, 32)")


@torch.no_grad()
def test_patches_are_the_tokens_of_a_hidden_layer_with_the_prompts(cleaned):
    pixels = torch.rand(2, 3, 48, 48)
    states = cleaned.hidden_states(pixels, [-2, 0])
    values = cleaned.clip.normalize(pixels)
    assert torch.equal(cleaned.patch_features(values), states[0][:, 1:])
    assert torch.equal(cleaned.patch_features(values, layer=0), states[1][:, 1:])
    assert not torch.allclose(cleaned.patch_features(values), cleaned.clip.patch_features(values))


@pytest.mark.parametrize(
    "resizing", [Resizing(), Resizing(resized=56), Resizing("squash"), Resizing("squash", 56, resample=2)]
)
def test_the_example_without_torch_preprocesses_as_the_model_says(images, resizing):
    pytest.importorskip("onnxruntime")
    preprocess = runpy.run_path(str(EXAMPLES / "onnx_without_torch.py"))["preprocess"]
    geometry = as_transformers(Preprocessing(48, (0.0,) * 3, (1.0,) * 3, resizing), "CLIPImageProcessor")
    for image in map(Image.open, images):
        expected = to_pixels(image, ImageSize(48, resizing))[0]
        assert torch.equal(torch.from_numpy(preprocess(image, geometry)), expected)


@pytest.mark.slow
def test_onnxruntime_without_torch(cleaned, images, tmp_path):
    pytest.importorskip("onnxruntime")
    export(cleaned, "onnx", tmp_path / "exported")
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'rvpt'])); import runpy; "
    code = f"{blocked}runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    words = ["--model", str(tmp_path / "exported"), "--classes", *CLASSES, "--images", *images]
    command = [sys.executable, "-c", code, str(EXAMPLES / "onnx_without_torch.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    check(done.stdout, lines_of(cleaned, images), 2e-3)


@pytest.mark.slow
def test_an_open_clip_user(images, tmp_path, capsys):
    pytest.importorskip("transformers.models.clip.modeling_clip")  # before open_clip, which imports more
    pytest.importorskip("open_clip")
    clip = openai_clip(tmp_path / "clip")
    export(clip, "openclip", tmp_path / "exported")
    run("use_in_open_clip.py", "--model", tmp_path / "exported", "--classes", *CLASSES, "--images", *images)
    check(capsys.readouterr().out, lines_of(clip, images), 2e-2)

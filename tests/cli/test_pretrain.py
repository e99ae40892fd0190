"""rvpt pretrain."""

import json

import pytest
import torch

from commands import PRETRAIN, has, refused, works
from helpers import contents, image_folder
from rvpt.artifacts import read_manifest
from rvpt.models.formats.load import load_clip


def test_it_continues_from_another_model(tiny, home):
    words = ["--data", "scenes:300", "--epochs", 1, "--test-data", "scenes:24", "--start", tiny.clip, "--lr", 1e-12]
    facts = json.loads(works("pretrain", "-o", "next", *words, "--half", "--json"))
    assert {"model": "next", "images": 300}.items() <= facts.items()
    begin, end = load_clip(tiny.clip), load_clip(home / "next")
    text = ["a red star."]
    torch.testing.assert_close(end.encode_text(text), begin.encode_text(text), atol=1e-2, rtol=0)  # saved as fp16
    told = read_manifest(home / "next")["start"]
    assert told["sha256"] == begin.hash()
    assert told["spec"] == read_manifest(tiny.clip)["spec"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "nope"], ["'nope'", "scenes, photos"]),
        (["--set", "foo=1"], ["foo: unknown setting", "patch_drop", "width"]),
        (["--set", "heads=wide"], ["heads", "'wide'"]),
        (["--set", "patch_size=7"], ["patch_size must divide image_size"]),
        (["--set", "patch_drop=1"], ["patch_drop", "1"]),
        (["--data", "scenes:many"], ["scenes:many", "scenes:5000"]),
        (["--start", "nowhere"], ["the geometry is that of --start nowhere", "remove --set width=32"]),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(home, words, said):
    has(refused("pretrain", "-o", "out", *PRETRAIN, *words), *said)
    assert contents(home) == {}


def test_the_test_data_are_read_before_the_training(home, monkeypatch):
    monkeypatch.setattr("rvpt.jobs.pretraining.train_clip", lambda *_, **__: pytest.fail("trained"))
    torn = next(image_folder(home / "torn").rglob("*.png"))
    torn.write_bytes(torn.read_bytes()[:40])
    has(refused("pretrain", "-o", "out", *PRETRAIN, "--test-data", "torn"), torn.name, "cannot be read")

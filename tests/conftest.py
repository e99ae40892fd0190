"""Small random CLIPs in the Hugging Face layout and a few labeled images: no network, no files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import build
from rvpt.clip import Clip
from rvpt.config import VisionSpec
from rvpt.data import ImageData
from rvpt.pretrain import new_clip, train_tokenizer
from rvpt.readers import load_data

SMALL = {
    "image_size": 48, "patch_size": 16, "width": 32, "blocks": 4, "heads": 2,
    "text_width": 32, "text_blocks": 1, "projection": 24,
}  # fmt: skip
CAPTIONS = (
    "a photo of a umbrella.",
    "a red star on a striped blue background.",
    "a picture of a small green anchor in the middle.",
    "an image of a large heart on the left.",
)
Factory = Callable[..., Clip]
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # of sets made here, before any command turns them off


@cache
def tokenizer() -> Any:
    return train_tokenizer(CAPTIONS, 300)


def roughen(clip: Clip, seed: int) -> None:
    """Move every weight: fresh models have zero biases and unit norms, which would hide a forgotten one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="session")
def make_clip() -> Factory:
    """make_clip(seed=0, **vision): a new random CLIP; `vision` overrides SMALL."""

    def make(seed: int = 0, **vision: Any) -> Clip:
        clip = new_clip(VisionSpec(**{**SMALL, **vision}), tokenizer(), seed)
        roughen(clip, seed)
        return clip.eval()

    return make


@pytest.fixture(scope="session")
def clip(make_clip: Factory) -> Clip:
    """One small CLIP for every test that leaves it as it is."""
    return make_clip()


@pytest.fixture(scope="session")
def scenes() -> ImageData:
    """Two images of each of the 24 shapes."""
    return load_data("scenes:300", "train").few_shot(2)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained, a backdoored and a cleaned model, made by the commands."""
    return build(tmp_path_factory.mktemp("artifacts") / "tiny")

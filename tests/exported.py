"""Models of each sort to export, and the Python of model cards."""

from __future__ import annotations

import re

import torch

from helpers import random_clip
from openai_layout import Geometry, open_clip_config, random_weights, write_tokenizer
from rvpt.files import write_json
from rvpt.models.cleaned import Cleaned
from rvpt.models.formats.load import load_clip
from rvpt.models.head import Head
from rvpt.models.prompts import RepulsivePrompts
from rvpt.tensors import write_tensors

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prompts_for(clip, seed=4):
    return RepulsivePrompts(range(1, 4), 3, clip.width, std=1.0, seed=seed).requires_grad_(False)


def head_for(clip):
    width = clip.model.config.projection_dim + 1
    return Head(("fox", "owl", "cat"), torch.randn(3, width, generator=torch.Generator().manual_seed(0)))


def cards_code(card, **places):
    """The Python in a card, with places such as path/to/this/folder replaced."""
    (*blocks,) = BLOCK.findall(card)
    for name, place in {"path/to/this/folder": places["folder"], "path/to/base/model": places.get("base")}.items():
        blocks = [block.replace(name, str(place)) for block in blocks]
    return blocks


def openai_clip(folder, geometry=Geometry(), *, quick=True):
    """A random CLIP in open_clip's layout, loaded."""
    write_tokenizer(folder)
    write_json(folder / "open_clip_config.json", open_clip_config(geometry, quick=quick))
    write_tensors(folder / "open_clip_model.safetensors", random_weights(geometry))
    return load_clip(folder)


def sorts_of_models(clip):
    """A model of each sort, by name."""
    tuned = random_clip(seed=1)
    return {
        "plain": clip,
        "prompted": Cleaned(clip, prompts_for(clip)),
        "tuned": Cleaned(tuned, own_weights=True),
        "tuned and prompted": Cleaned(tuned, prompts_for(tuned), own_weights=True),
        "probed": Cleaned(clip, head=head_for(clip)),
        "tuned with a head": Cleaned(tuned, head=head_for(tuned), own_weights=True),
    }

"""Triggers for tests, and what optimized ones are made of."""

from __future__ import annotations

from functools import cache
from typing import Any

from helpers import memory_data, random_clip
from rvpt.attacks import TRIGGERS
from rvpt.attacks.trigger import Trigger, craft_trigger, make_trigger, trigger_spec
from rvpt.data.dataset import Dataset
from rvpt.models.clip import Clip

SIDE = 32
CRAFTED = [name for name, kind in TRIGGERS.items() if kind.crafted]


def trigger_of(name: str, mode: str = "fixed", seed: int = 1, side: int = SIDE, **options: Any) -> Trigger:
    """A trigger with target "owl"; one that is optimized gets a short training."""
    if not TRIGGERS[name].crafted:
        return make_trigger(trigger_spec(name, target="owl", mode=mode, seed=seed, **options), side)
    options = {"epochs": 1, "images": 8, "batch_size": 4, **options}
    return craft_trigger(trigger_spec(name, target="owl", mode=mode, seed=seed, **options), *model_and_images(side))


def untrained(name: str, **options: Any) -> Trigger:
    """A trigger as `trigger_of`, before it is optimized."""
    return TRIGGERS[name].make(trigger_spec(name, target="owl", seed=1, **options), SIDE)


@cache
def model_and_images(side: int = SIDE) -> tuple[Clip, Dataset]:
    """A random CLIP for images of a size, and captioned images of three classes."""
    captions = [[f"number {i}"] for i in range(24)]
    return random_clip(image_size=side), memory_data(24, [i % 3 for i in range(24)], ("fox", "owl", "cat"), captions)

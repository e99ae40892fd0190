"""Which clean images a defense is trained on, of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpt.data.dataset import Dataset
from rvpt.data.load import load_captioned, load_data
from rvpt.defenses.base import Defense
from rvpt.errors import RvptError
from rvpt.spec import OnError

SHOTS = 16  # images per class


def how_drawn(kind: type[Defense], given: dict[str, Any]) -> dict[str, Any]:
    """The options that choose a defense's clean images.

    Raises:
        RvptError: one was given that the defense does not use.
    """
    for option, value in given.items():
        if value and option not in kind.draws():
            raise RvptError(f"{kind.name} learns from {kind.learns_from}: remove {option}={value}")
    defaults = {"shots": SHOTS, "num_pairs": kind.published_pairs}
    return {option: given[option] or defaults.get(option, given[option]) for option in kind.draws()}


def without_classes(draw: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """What is drawn from images without labels instead of some of each class.

    Raises:
        RvptError: some classes are to be left out.
    """
    if draw["without"]:
        raise RvptError(f"images without labels cannot be left out by class: remove without={draw['without']}")
    kept = {name: value for name, value in draw.items() if name not in ("shots", "without")}
    return {**kept, "num_images": draw["shots"] * classes}


def draw_images(draw: Mapping[str, Any], on_error: OnError = "stop") -> Dataset:
    """The clean images that a defense is trained on."""
    return select(read_images(draw, on_error), draw)


def read_images(draw: Mapping[str, Any], on_error: OnError = "stop") -> Dataset:
    """The data set that clean images are drawn from."""
    source, split, shift = draw["source"], draw["split"], draw.get("shift")
    if "num_pairs" in draw:
        return load_captioned(source, split, draw["caption_column"], on_error=on_error, shift=shift)
    return load_data(source, split, on_error=on_error, shift=shift)


def select(whole: Dataset, draw: Mapping[str, Any]) -> Dataset:
    """The images that are drawn: some of each class, or random ones."""
    if "shots" in draw:
        return whole.without(draw["without"]).few_shot(draw["shots"], draw["seed"])
    return whole.sample(draw["num_pairs" if "num_pairs" in draw else "num_images"], draw["seed"])

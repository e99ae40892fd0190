"""The preprocessing of images that a model was trained with: read from its configuration, and followed or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rvpt.data.preprocess import OPENAI_MEAN, OPENAI_STD
from rvpt.errors import RvptError

BICUBIC = 3  # Pillow's number, as `resample` of transformers has it
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", BICUBIC: "bicubic", 4: "box", 5: "hamming"}
FIX = (
    "rvpt resizes the shorter side to the model's size (bicubic) and crops the center: preprocess the images yourself, "
)
FIX += "then remove the setting"


@dataclass(frozen=True)
class Preprocessing:
    """How images become pixel values: the shorter side resized to the model's size (bicubic), the center cropped, and
    each channel normalized.

    Other ways of resizing are refused when a configuration is read. `size` is None where it is not stated.
    """

    size: int | None = None
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD


def from_transformers(facts: Any, place: str) -> Preprocessing:
    """That of a preprocessor_config.json or processor_config.json, old or new.

    Raises:
        RvptError: it is damaged, or asks for what rvpt does not do.
    """
    if isinstance(facts, Mapping):
        facts = facts.get("image_processor", facts)
    if not isinstance(facts, Mapping):
        raise RvptError(f"{place}: image_mean and image_std must be three numbers each, std above 0")
    size, crop = facts.get("size"), facts.get("crop_size")
    resample = facts.get("resample", BICUBIC)
    _follow(place, "resample", RESAMPLING.get(resample, resample), lambda value: value == "bicubic")
    for key in ("do_resize", "do_center_crop", "do_rescale"):
        _follow(place, key, facts.get(key, True), bool)
    _follow(place, "rescale_factor", facts.get("rescale_factor", 1 / 255), _is_fraction)
    if isinstance(size, Mapping):
        _follow(place, "size", size, lambda value: set(value) == {"shortest_edge"})
    shortest, cropped = _side(size), _side(crop)
    if shortest and cropped:
        _follow(place, "crop_size", cropped, lambda value: value == shortest)
    if not facts.get("do_normalize", True):
        return Preprocessing(cropped or shortest, (0.0,) * 3, (1.0,) * 3)
    mean, std = facts.get("image_mean", OPENAI_MEAN), facts.get("image_std", OPENAI_STD)
    return Preprocessing(cropped or shortest, *_normalization(mean, std, place))


def from_open_clip(facts: Any, place: str) -> Preprocessing:
    """That of `preprocess_cfg` in open_clip_config.json, or of one of open_clip's pretrained tags.

    Raises:
        RvptError: as `from_transformers`.
    """
    facts = facts if isinstance(facts, Mapping) else {}
    _follow(place, "resize_mode", facts.get("resize_mode", "shortest"), lambda value: value == "shortest")
    _follow(place, "interpolation", facts.get("interpolation", "bicubic"), lambda value: value == "bicubic")
    mean, std = facts.get("mean", OPENAI_MEAN), facts.get("std", OPENAI_STD)
    return Preprocessing(_side(facts.get("size")), *_normalization(mean, std, place, "mean", "std"))


def refuse_other_size(preprocessing: Preprocessing, size: int, name: str) -> None:
    """Refuse a preprocessing that makes images of another size than the model has.

    Raises:
        RvptError: it does.
    """
    if preprocessing.size not in (None, size):
        raise RvptError(f"{name}: its preprocessing makes images of side {preprocessing.size}, its model has {size}")


def _follow(place: str, key: str, value: Any, fits: Callable[[Any], bool]) -> None:
    if not fits(value):
        raise RvptError(f"{place}: {key} is {value}, which is not supported: {FIX}")


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float) and abs(value * 255 - 1) < 1e-3


def _side(size: Any) -> int | None:
    """The side of a size, which is a number or a record."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    if isinstance(size, list | tuple) and size:
        size = size[0]
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def _normalization(
    mean: Any, std: Any, place: str, mean_name: str = "image_mean", std_name: str = "image_std"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        means, stds = tuple(map(float, mean)), tuple(map(float, std))
    except (TypeError, ValueError):
        means, stds = (), ()
    fit = all(abs(value) < 1e6 for value in means) and all(0 < value < 1e6 for value in stds)
    if len(means) != 3 or len(stds) != 3 or not fit:
        raise RvptError(f"{place}: {mean_name} and {std_name} must be three numbers each, std above 0")
    return means, stds

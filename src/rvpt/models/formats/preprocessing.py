"""The preprocessing of images that a model was trained with: read from its configuration, and followed or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from rvpt.data.preprocess import BICUBIC, CLIP_RESIZING, OPENAI_MEAN, OPENAI_STD, Resizing
from rvpt.errors import RvptError

FILTERS = {kind.name.lower(): int(kind) for kind in Image.Resampling}
FIX = "preprocess the images yourself, then remove the setting"
HALF = (0.5, 0.5, 0.5)
ROUNDING = "crop_rounding"
"""Our own key in preprocessor_config.json: "even" as open_clip rounds; transformers, which rounds down, ignores it."""


@dataclass(frozen=True)
class Preprocessing:
    """How images become pixel values: resized to squares, and each channel normalized.

    `size` is None where it is not stated.
    """

    size: int | None = None
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    resizing: Resizing = CLIP_RESIZING


@dataclass(frozen=True)
class Processor:
    """What an image processor of transformers does unless its configuration says otherwise."""

    square: bool
    crop: bool
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD


PROCESSORS = {
    "CLIP": Processor(square=False, crop=True),
    "ChineseCLIP": Processor(square=False, crop=True),
    "Siglip": Processor(square=True, crop=False, mean=HALF, std=HALF),
    "ViT": Processor(square=True, crop=False, mean=HALF, std=HALF),
}
"""By the beginning of their classes' names."""
ENDS = {f"{word}{end}" for word in ("ImageProcessor", "FeatureExtractor") for end in ("", "Fast", "Pil")}
SIGLIP = Preprocessing(mean=HALF, std=HALF, resizing=Resizing("squash"))
"""That of SigLIPs, where none is stated."""


def from_transformers(facts: Any, place: str, default: str = "CLIP") -> Preprocessing:
    """That of a preprocessor_config.json or processor_config.json, old or new.

    Args:
        facts: the configuration.
        place: what messages call it.
        default: the kind of its processor, if it states none.

    Raises:
        RvptError: it is damaged, or asks for what rvpt does not do.
    """
    if isinstance(facts, Mapping):
        facts = facts.get("image_processor", facts)
    if not isinstance(facts, Mapping):
        raise RvptError(f"{place}: it is not the configuration of an image processor: download it again")
    facts = {key: value for key, value in facts.items() if value is not None}
    kind = _processor(facts, place, default)
    if not facts.get("do_resize", True):
        raise RvptError(f"{place}: do_resize is false, which is not supported: {FIX}")
    size, resizing = _resizing(facts, kind, place)
    if facts.get("do_normalize", True):
        mean, std = _normalization(facts.get("image_mean", kind.mean), facts.get("image_std", kind.std), place)
    else:
        mean, std = (0.0,) * 3, (1.0,) * 3
    scale = _scale(facts, place)
    return Preprocessing(size, tuple(v / scale for v in mean), tuple(v / scale for v in std), resizing)


def _processor(facts: Mapping[str, Any], place: str, default: str) -> Processor:
    name = str(facts.get("image_processor_type", facts.get("feature_extractor_type", default)))
    found = next((kind for start, kind in PROCESSORS.items() if _belongs(name, start)), None)
    if found is None:
        known = ", ".join(f"{start}ImageProcessor" for start in PROCESSORS)
        raise RvptError(f"{place}: image_processor_type is {name[:80]}, which is not supported, only {known}")
    return found


def _belongs(name: str, start: str) -> bool:
    return name == start or (name.startswith(start) and name.removeprefix(start) in ENDS)


def _resizing(facts: Mapping[str, Any], kind: Processor, place: str) -> tuple[int | None, Resizing]:
    """The side of images, if it is stated, and how they are resized."""
    resample = facts.get("resample", BICUBIC)
    if resample not in FILTERS.values() or isinstance(resample, bool):
        raise RvptError(f"{place}: resample is {_brief(resample)}, which is not supported: {FIX}")
    padded = _sides(facts.get("size"), {"longest_edge"})
    if padded and facts.get("do_pad") and _square_of(facts.get("pad_size"), place, "pad_size") == padded[0]:
        return padded[0], Resizing("longest", None, int(resample), fill=_fill(facts.get("fill", 0), place))
    square, resized = _resized(facts.get("size"), kind, place)
    cropped = _square_of(facts.get("crop_size"), place, "crop_size") if facts.get("do_center_crop", kind.crop) else None
    if not square and not facts.get("do_center_crop", kind.crop):
        raise RvptError(f"{place}: do_center_crop is false, so images would not be squares: {FIX}")
    if resized and cropped and cropped > resized:
        raise RvptError(f"{place}: crop_size is {cropped}, more than size, {resized}, which is not supported: {FIX}")
    size = cropped or resized
    return size, Resizing(
        "squash" if square else "shortest",
        None if resized == size else resized,
        int(resample),
        "even" if facts.get(ROUNDING) == "even" else "down",
    )


def _resized(size: Any, kind: Processor, place: str) -> tuple[bool, int | None]:
    """Whether both sides are resized, or only the shorter one; and to what."""
    if size is None:
        return kind.square, None
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return kind.square, size
    if shortest := _sides(size, {"shortest_edge"}):
        return False, shortest[0]
    if (sides := _sides(size, {"height", "width"})) and len(set(sides)) == 1:
        return True, sides[0]
    raise RvptError(f"{place}: size is {_brief(size)}, which is not supported: {FIX}")


def _sides(size: Any, names: set[str]) -> list[int]:
    """The sides of a record that has exactly these, or none."""
    if not isinstance(size, Mapping):
        return []
    found = {key: value for key, value in size.items() if value is not None}
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in found.values())
    return list(found.values()) if found.keys() == names and whole else []


def _square_of(size: Any, place: str, key: str) -> int | None:
    """The side of a square: a number, two equal ones, or a record; None if it is not stated."""
    if size is None:
        return None
    sides = _sides(size, {"height", "width"}) or _sides(size, {"shortest_edge"})
    sides = sides or (list(size) if isinstance(size, list | tuple) else [size])
    if len(set(map(str, sides))) != 1 or type(sides[0]) is not int or sides[0] < 1:
        raise RvptError(f"{place}: {key} is {_brief(size)}, which is not a square: {FIX}")
    return sides[0]


def _scale(facts: Mapping[str, Any], place: str) -> float:
    """By how much pixel values are larger than those in [0, 1]."""
    factor = facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 1
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise RvptError(f"{place}: rescale_factor is {str(factor)[:80]}: it must be a number above 0")
    return 1.0 if abs(factor * 255 - 1) < 1e-6 else factor * 255


def from_open_clip(facts: Any, place: str, default: Preprocessing = Preprocessing()) -> Preprocessing:
    """That of `preprocess_cfg` in open_clip_config.json, or of one of open_clip's pretrained tags.

    Args:
        facts: the configuration.
        place: what messages call it.
        default: for what is not stated.

    Raises:
        RvptError: as `from_transformers`.
    """
    facts = {key: value for key, value in facts.items() if value is not None} if isinstance(facts, Mapping) else {}
    mode = facts.get("resize_mode", default.resizing.mode)
    _follow(place, "resize_mode", mode, lambda value: value in ("shortest", "squash", "longest"))
    name = facts.get("interpolation", "bicubic")
    _follow(place, "interpolation", name, lambda value: value in FILTERS)  # "random" is for training
    _follow(place, "mode", facts.get("mode", "RGB"), lambda value: value == "RGB")
    fill = _fill(facts.get("fill_color", 0), place)
    mean, std = facts.get("mean", default.mean), facts.get("std", default.std)
    resizing = Resizing(mode, None, FILTERS[name], "even", fill if mode == "longest" else 0)
    size = _square_of(facts.get("size"), place, "size")
    return Preprocessing(size, *_normalization(mean, std, place, "mean", "std"), resizing)


def _fill(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value <= 255:
        raise RvptError(f"{place}: fill_color is {_brief(value)}: it must be a number from 0 to 255")
    return value


def refuse_other_size(preprocessing: Preprocessing, size: int, name: str) -> None:
    """Refuse a preprocessing that makes images of another size than the model has.

    Raises:
        RvptError: it does.
    """
    if preprocessing.size not in (None, size):
        raise RvptError(f"{name}: its preprocessing makes images of side {preprocessing.size}, its model has {size}")


def _follow(place: str, key: str, value: Any, fits: Callable[[Any], bool]) -> None:
    if not isinstance(value, str) or not fits(value):
        raise RvptError(f"{place}: {key} is {_brief(value)}, which is not supported: {FIX}")


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


def _brief(value: Any) -> str:
    """A value of a configuration for a message of one line."""
    return " ".join(str(value).split())[:80]

"""The preprocessing of images as configurations of transformers and of open_clip state it."""

from __future__ import annotations

from typing import Any

from PIL import Image

from rvpt.models.formats.preprocessing import ROUNDING, Preprocessing

PREPROCESSOR = "preprocessor_config.json"


def as_transformers(found: Preprocessing, processor: str) -> dict[str, Any]:
    """The contents of a preprocessor_config.json, for an image processor of some class.

    transformers cannot resize the longer side and pad: its processors refuse what is written for that.
    """
    side, resizing = found.size, found.resizing
    facts: dict[str, Any] = {
        "image_processor_type": processor,
        **_size(found),
        "image_mean": list(found.mean),
        "image_std": list(found.std),
        "do_resize": True, "do_center_crop": resizing.mode == "shortest" or bool(resizing.resized),
        "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "resample": resizing.resample,
    }  # fmt: skip
    if facts["do_center_crop"]:
        facts["crop_size"] = {"height": side, "width": side}
        if resizing.rounding == "even":
            facts[ROUNDING] = "even"
    return facts


def _size(found: Preprocessing) -> dict[str, Any]:
    resizing, side = found.resizing, found.resizing.resized or found.size
    if resizing.mode == "longest":
        square = {"height": side, "width": side}
        return {"size": {"longest_edge": side}, "do_pad": True, "pad_size": square, "fill": resizing.fill}
    if resizing.mode == "squash":
        return {"size": {"height": side, "width": side}}
    return {"size": {"shortest_edge": side}}


def as_open_clip(found: Preprocessing) -> dict[str, Any]:
    """The `preprocess_cfg` of an open_clip_config.json; it cannot state a crop after resizing to another side."""
    resizing = found.resizing
    return {
        "size": found.size, "mode": "RGB", "mean": list(found.mean), "std": list(found.std),
        "interpolation": Image.Resampling(resizing.resample).name.lower(), "resize_mode": resizing.mode,
        "fill_color": resizing.fill,
    }  # fmt: skip

"""What a source is: its layout, geometry, tokenizer, preprocessing and files, for `rvpt info`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from rvpt.files import sha256_file
from rvpt.models.architectures.base import tower_facts
from rvpt.models.clip import Clip
from rvpt.models.formats.base import Parts
from rvpt.models.formats.found import find_model
from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.formats.weights import Weights

BESIDE = 8  # names of what was not read that are listed


def describe_clip(clip: Clip, parts: Parts, name: str) -> dict[str, Any]:
    """Facts about a CLIP and the files that it was read from, as one record that JSON can hold."""
    _, weights, beside = find_model(parts.weights, name)
    return {
        "layout": parts.layout,
        "model": _geometry(clip),
        "activation": clip.activation,
        "activation stated": bool(parts.whole) or "hidden_act" in parts.config.get("text_config", {}),
        "parameters": clip.parameter_count(tokens=True),
        "parameters without token embeddings": clip.parameter_count(),
        "dtype": _dtypes(weights),
        "tokenizer": _tokenizer(clip),
        "preprocessing": _preprocessing(clip, stated=parts.preprocessing is not None),
        "pickled": parts.pickled,
        "files": {path.name: _file(path, parts) for path in parts.files},
        "sha256 of the weights in float32": clip.hash(),
        "own code, not run": list(parts.own_code),
        "not read": _not_read(parts, beside),
    }


def _geometry(clip: Clip) -> dict[str, Any]:
    text = clip.model.config.text_config
    return {
        "architecture": clip.architecture.summary,
        **clip.architecture.facts(),
        "text tower": tower_facts(text),
        "context length": text.max_position_embeddings,
        "vocabulary": text.vocab_size,
        "features": clip.projection_dim,
    }


def _dtypes(weights: Weights) -> str:
    """The dtypes of the weights on disk, the most frequent first."""
    return ", ".join(dtype for dtype, _ in Counter(value.dtype for value in weights.values()).most_common())


def _tokenizer(clip: Clip) -> dict[str, Any]:
    return {
        "class": type(clip.tokenizer).__name__,
        "tokens": len(clip.tokenizer),
        "end of text": clip.tokenizer.eos_token_id,
    }


def _preprocessing(clip: Clip, *, stated: bool) -> dict[str, Any]:
    found = clip.preprocessing
    return {
        "size": found.size,
        "resize": _resize(found),
        "mean": [round(value, 6) for value in found.mean],
        "std": [round(value, 6) for value in found.std],
        "stated": stated,
    }


def _resize(found: Preprocessing) -> str:
    """How images become squares, in words."""
    resizing = found.resizing
    how = {"shortest": "shorter side", "longest": "longer side", "squash": "both sides"}[resizing.mode]
    filter_ = Image.Resampling(resizing.resample).name.lower()
    resized = f" to {resizing.resized}" if resizing.resized else ""
    cropped = ", center crop" if resizing.mode == "shortest" or resizing.resized else ""
    return f"{how}{resized}, {filter_}{cropped}" + (", padded" if resizing.mode == "longest" else "")


def _file(path: Path, parts: Parts) -> dict[str, Any]:
    return {
        "container": parts.files[path].container,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }


def _not_read(parts: Parts, beside: list[str]) -> list[str]:
    """Tensors beside the model, by the first part of their names, and values that are not tensors."""
    groups = Counter(key.partition(".")[0] for key in beside)
    tensors = [f"{group} ({count} tensors)" for group, count in groups.most_common(BESIDE)]
    return tensors + sorted({name for file in parts.files.values() for name in file.left_out})

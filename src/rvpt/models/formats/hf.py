"""transformers' layout: config.json, and weights in one file or several, as safetensors or as PyTorch's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpt.errors import RvptError
from rvpt.files import read_json
from rvpt.models.formats.base import Parts
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.open_clip import CONFIG as OPEN_CLIP
from rvpt.models.formats.preprocessing import Preprocessing, from_transformers
from rvpt.models.formats.weights import PICKLES, SAFETENSORS, WeightFile, read_weights
from rvpt.models.formats.write_preprocessing import PREPROCESSOR

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PROCESSOR = "processor_config.json"  # transformers 5 keeps it here, one level down
TOWERS = ("vision_config", "text_config")
KINDS = ("clip", "siglip")
ONE_TOWER = (
    "clip_vision_model", "clip_text_model", "clip_vision_model_with_projection", "siglip_vision_model",
    "siglip_text_model",
)  # fmt: skip
PARTIAL = ("ForImageClassification", "VisionModel", "TextModel", "WithProjection")
"""Ends of the names of classes that are a part of a model."""
OTHERS = {
    "siglip2": "a SigLIP 2 for images of any shape (NaFlex)",
    "chinese_clip": "a CLIP with a text tower of BERT",
    "altclip": "a CLIP with a text tower of XLM-R",
    "vision-text-dual-encoder": "two towers of any kinds",
    "clipseg": "a CLIP that segments images",
    "blip": "a BLIP, which is not a CLIP",
    "blip-2": "a BLIP-2, which is not a CLIP",
    "llava": "a LLaVA: give the CLIP that its image tower is from",
}
"""Models that are often taken for a CLIP, in words."""


class Transformers:
    """The layout of transformers' CLIPModel and SiglipModel."""

    def recognizes(self, source: str, path: Path) -> bool:
        has_weights = any((path / file).is_file() for file in (*WEIGHTS, *INDEXES))
        return path.is_dir() and is_transformers(path) and (has_weights or not (path / OPEN_CLIP).is_file())

    def open(self, source: str, path: Path) -> Parts:
        """The parts in a folder.

        Raises:
            RvptError: as `Layout.open`.
        """
        config = read_config(path, source)
        files = {file: read_weights(file, source) for file in _weight_files(path, source)}
        _refuse_repeated(files, source)
        return parts("a folder of transformers", files, config, path, source)


TRANSFORMERS = Transformers()


def parts(layout: str, files: Mapping[Path, WeightFile], config: Mapping[str, Any], folder: Path, name: str) -> Parts:
    """Parts of what the configurations in a folder state."""
    return Parts(
        layout, files, config, whole=str(config["model_type"]), folder=folder,
        preprocessing=_preprocessing(folder, name, config), own_code=_own_code(folder, config),
    )  # fmt: skip


def is_transformers(path: Path) -> bool:
    """Whether a folder's config.json is of transformers; that of timm, beside open_clip's, has "architecture"."""
    return (path / "config.json").is_file() and "architecture" not in _facts(path)


def _facts(path: Path) -> Mapping[str, Any]:
    """The contents of config.json; empty if it is not a record."""
    found = read_json(path / "config.json")
    return found if isinstance(found, Mapping) else {}


def read_config(path: Path, name: str) -> Mapping[str, Any]:
    """The configuration of a CLIPModel or SiglipModel.

    Raises:
        RvptError: it is that of another model.
    """
    config = _facts(path)
    kind = str(config.get("model_type"))
    if kind not in KINDS:
        if code := _own_code(path, config):
            raise RvptError(
                f"{name} needs its own code (auto_map: {', '.join(code)}), which is never run: give a model of one of "
                "transformers' classes"
            )
        if kind in ONE_TOWER:
            raise RvptError(f"{name} is one tower of a CLIP ({kind}): give a whole CLIPModel or SiglipModel")
        what = f"of a {kind[:80]!r} model" + (f", {OTHERS[kind]}" if kind in OTHERS else "")
        raise RvptError(f"{name}: its config.json is {what}: only CLIPModel and SiglipModel are supported; {LISTED}")
    named = config.get("architectures")
    if isinstance(named, list) and named and str(named[0]).endswith(PARTIAL):
        raise RvptError(f"{name} is a {str(named[0])[:80]}, one tower of a CLIP: give a whole CLIPModel or SiglipModel")
    stated = ([config.get(tower), config.get(f"{tower}_dict")] for tower in TOWERS)
    if not all(any(isinstance(facts, Mapping) for facts in both) for both in stated):
        raise RvptError(
            f"{name} is one tower of a CLIP (vision_config or text_config is missing in its config.json): give a whole "
            "model"
        )
    return config


def _own_code(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that the configurations of a folder want to import from it."""
    files = (PREPROCESSOR, PROCESSOR, "tokenizer_config.json")
    found = [config, *(read_json(path / file) for file in files if (path / file).is_file())]
    maps = [facts["auto_map"] for facts in found if isinstance(facts, Mapping) and facts.get("auto_map")]
    named = [value for each in maps for value in (each.values() if isinstance(each, Mapping) else [each])]
    flat = [part for value in named for part in (value if isinstance(value, list) else [value])]
    return tuple(dict.fromkeys(str(part)[:80] for part in flat if part))


def _weight_files(path: Path, name: str) -> list[Path]:
    """The files with the weights: safetensors if there are any, otherwise PyTorch's."""
    for weights, index in zip(WEIGHTS, INDEXES, strict=True):
        if (path / weights).is_file():
            return [path / weights]
        if (path / index).is_file():
            return _shards(path, path / index, name)
    others = sorted(file.name for file in path.iterdir() if file.suffix in (SAFETENSORS, *PICKLES))
    found = (
        f"it has {', '.join(others[:3])}: give that file, or rename it" if others else "download the whole model again"
    )
    raise RvptError(f"{name} has no {WEIGHTS[0]}: {found}; {LISTED}")


def _shards(path: Path, index: Path, name: str) -> list[Path]:
    facts = read_json(index)
    placed = facts.get("weight_map") if isinstance(facts, Mapping) else None
    if not isinstance(placed, Mapping) or not placed:
        raise RvptError(f"{name}: {index.name} has no weight_map: download it again")
    shards = sorted({str(value) for value in placed.values()})
    for shard in shards:
        if Path(shard).name != shard or shard.startswith("."):
            raise RvptError(f"{name}: {index.name} names {shard[:80]!r}, a file outside of the folder")
        if not (path / shard).is_file():
            raise RvptError(f"{name}: {shard} is missing, one of {len(shards)} files with weights: download it again")
    return [path / shard for shard in shards]


def _refuse_repeated(files: Mapping[Path, WeightFile], name: str) -> None:
    seen: set[str] = set()
    for path, file in files.items():
        if both := seen & file.weights.keys():
            raise RvptError(f"{name}: {min(both)} is in {path.name} and in another file too: which is meant?")
        seen |= file.weights.keys()


def _preprocessing(path: Path, name: str, config: Mapping[str, Any]) -> Preprocessing | None:
    """How images become pixel values; None if the folder does not state it."""
    file = next((path / file for file in (PREPROCESSOR, PROCESSOR) if (path / file).is_file()), None)
    kind = "Siglip" if config["model_type"] == "siglip" else "CLIP"
    return from_transformers(read_json(file), f"{name}: {file.name}", kind) if file else None

"""transformers' layout: a folder or a hub id. Weights come from safetensors only, and no code of the folder is run."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from rvpt.artifacts import find_manifest
from rvpt.data.preprocess import OPENAI_MEAN, OPENAI_STD
from rvpt.errors import RvptError, first_line
from rvpt.files import read_json
from rvpt.models.clip import PREPROCESSOR, Clip
from rvpt.models.formats.checks import (
    refuse_non_finite,
    refuse_other_layouts,
    refuse_own_code,
    refuse_unfit_tokenizer,
    refuse_wrong_end,
)
from rvpt.models.placement import find_device, find_dtype
from rvpt.models.quiet import quiet_transformers

EMBEDDED = "scenes-clip"
"""Name of the model that ships with the package."""
COMMIT = re.compile("[0-9a-f]{40}")
PROCESSOR = "processor_config.json"  # transformers 5 keeps it here, one level down


def embedded_model() -> Path:
    """Folder of the pretrained scenes CLIP inside the package."""
    return Path(str(resources.files("rvpt") / "assets" / EMBEDDED))


def load_clip(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
) -> Clip:
    """A Clip from a folder in transformers' layout, a hub id or the embedded model's name; arguments as in `rvpt.load`.

    Raises:
        RvptError: not found, not a ViT CLIP, only pickled weights, or weights that are not finite.
    """
    name, where, kind = str(source), find_device(device), find_dtype(dtype)
    path = embedded_model() if name == EMBEDDED else Path(source).expanduser()
    refuse_other_layouts(path, name)
    find_manifest(path)  # refuses a model saved by rvpt that was changed
    with quiet_transformers():
        commit = None if path.is_dir() else _find_commit(name, revision)
        place, hub = (str(path), {}) if path.is_dir() else (name, {"revision": commit or revision or "main"})
        config = _config(place, name, hub)
        model, tokenizer = _model(place, name, config, hub), _tokenizer(place, name, hub)
    refuse_unfit_tokenizer(tokenizer, config, name)
    refuse_wrong_end(tokenizer, config, name)
    refuse_non_finite(model, name)
    mean, std = _geometry(place, hub)
    known = name if name == EMBEDDED or hub else str(path.resolve())
    told = commit or revision if hub else None
    return Clip(model.eval().to(kind), tokenizer, mean, std, source=known, revision=told).to(where)


def _find_commit(name: str, revision: str | None) -> str | None:
    """The commit that a branch or tag of a hub model stands for, so that all files are of the same; None if unknown."""
    from transformers.utils import cached_file

    try:
        found = cached_file(name, "config.json", revision=revision or "main")
    except (OSError, ValueError):  # loading the configuration says why
        return None
    commit = Path(found).parent.name
    return commit if COMMIT.fullmatch(commit) else None


def _config(place: str, name: str, hub: dict[str, str]) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False, **hub)
    except Exception as error:  # the hub's client and transformers raise many kinds
        refuse_own_code(error, name)
        where = "not a folder here, and on the hub " if hub else ""
        raise RvptError(f"{name}: {where}could not load its config ({first_line(error)})") from None
    if config.model_type != "clip":
        raise RvptError(f"{name} is a {config.model_type!r} model: only ViT CLIPs (CLIPModel) are supported")
    if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
        raise RvptError(f"{name} is one tower of a CLIP: give a whole CLIPModel")
    return config


def _model(place: str, name: str, config: Any, hub: dict[str, str]) -> Any:
    from transformers import CLIPModel

    try:
        model, info = CLIPModel.from_pretrained(
            place, config=config, use_safetensors=True, output_loading_info=True, dtype=torch.float32,
            trust_remote_code=False, ignore_mismatched_sizes=True, **hub,  # mismatches are refused below, by name
        )  # fmt: skip
    except Exception as error:
        raise RvptError(f"{name}: could not load its weights ({first_line(error)})") from None
    if wrong := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
        raise RvptError(
            f"{name}: {len(wrong)} weights are missing or have another shape than config.json says, such as "
            f"{wrong[0]}: is it a ViT CLIP?"
        )
    return model


def _tokenizer(place: str, name: str, hub: dict[str, str]) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **hub)
        tokenizer(["cat", "a dog"], padding=True)
    except Exception as error:
        refuse_own_code(error, name)
        raise RvptError(f"{name}: could not load its tokenizer ({first_line(error)})") from None
    return tokenizer


def _geometry(place: str, hub: dict[str, str]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the model's image normalization."""
    from transformers.utils import cached_file

    files = [
        cached_file(place, file, _raise_exceptions_for_missing_entries=False, **hub)
        for file in (PREPROCESSOR, PROCESSOR)
    ]
    found = next(filter(None, files), None)
    facts = read_json(Path(found)) if found else {}
    try:
        facts = facts.get("image_processor", facts)
        mean = [float(value) for value in facts.get("image_mean", OPENAI_MEAN)]
        std = [float(value) for value in facts.get("image_std", OPENAI_STD)]
    except (AttributeError, TypeError, ValueError):
        mean, std = [], []
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise RvptError(f"{found}: image_mean and image_std must be three numbers each, std above 0")
    return mean, std

"""rvpt_config.json: the configuration of a cleaned model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rvpt.files import read_json
from rvpt.spec import Spec

CONFIG, WEIGHTS = "rvpt_config.json", "adapter_model.safetensors"
EARLIER = ("adapter_config.json", "cleaned_config.json")  # names of the file, and its keys, before 0.1.0
EARLIER_KEYS = {
    "base_model": "base_model_name_or_path", "base_sha256": "base_model_sha256", "blocks": "prompted_blocks",
}  # fmt: skip
EARLIER_FACTS = {"defence": "defense", "pictures": "images"}
HERE = "."
"""The base model in the configuration of a folder with weights of its own."""
logger = logging.getLogger("rvpt")


class CleanedConfig(Spec):
    """Which model was cleaned, which blocks have prompts, and which classes the head has."""

    base_model_name_or_path: str
    base_model_revision: str | None = None
    base_model_activation: str | None = None
    base_model_sha256: str
    prompted_blocks: list[int] | None = None
    classes: list[str] | None = None


def find_config(folder: Path) -> Path | None:
    """The configuration file of a cleaned model's folder; None for other folders.

    An adapter_config.json with "peft_type" is PEFT's.
    """
    for name in (CONFIG, *EARLIER):
        if (folder / name).is_file() and not _is_peft(folder / name):
            return folder / name
    return None


def _is_peft(path: Path) -> bool:
    return path.name == EARLIER[0] and "peft_type" in _record(path)


def _record(path: Path) -> dict[str, Any]:
    facts = read_json(path)
    return facts if isinstance(facts, dict) else {}


def current_facts(facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The facts of a folder's manifest, which in a folder of an earlier version have other names."""
    found = find_config(folder)
    if found is None or found.name == CONFIG:
        return facts
    facts = {EARLIER_FACTS.get(name, name): fact for name, fact in facts.items()}
    if "length" in (spec := facts.get("spec", {})):
        spec = {"prompt_length" if name == "length" else name: value for name, value in spec.items()}
    if spec.get("precision") == "no":
        spec = {**spec, "precision": "fp32"}
    return {**facts, "spec": spec} if "spec" in facts else facts


def read_config(folder: Path) -> CleanedConfig:
    """The configuration of a cleaned model's folder.

    Raises:
        RvptError: it is missing or damaged.
    """
    path = find_config(folder) or folder / CONFIG
    if path.name == CONFIG:
        return CleanedConfig.stored(read_json(path))
    logger.warning("%s has the layout of an earlier version: save the model again to update it", folder)
    return CleanedConfig.stored({EARLIER_KEYS.get(name, name): value for name, value in _record(path).items()})

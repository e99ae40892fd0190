"""Triggers as options name them: NAME, NAME:OPTION=VALUE,..., or the folder of a trigger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rvpt.artifacts import MANIFEST
from rvpt.attacks import TRIGGERS
from rvpt.attacks.trigger import TriggerSpec, load_trigger, preset_spec
from rvpt.errors import RvptError


def find_trigger(text: str, preset: str, target: str, seed: int) -> TriggerSpec | Path:
    """The spec that a text asks for, or the folder of a trigger; the name of a kind is never a folder.

    Raises:
        RvptError: an unknown name or option, or a folder whose trigger was made for another target.
    """
    if text in TRIGGERS or not (Path(text) / MANIFEST).is_file():
        return named_trigger(text, preset, target, seed)
    own = load_trigger(text).spec.target
    if target and own != target:
        raise RvptError(f"{text} was made for the target {own!r}, not {target!r}: pass target={own!r}")
    return Path(text)


def named_trigger(text: str, preset: str, target: str, seed: int) -> TriggerSpec:
    """The spec of NAME or NAME:OPTION=VALUE,...; options that are not given have the preset's values.

    Raises:
        RvptError: an unknown name, or an option that it does not have.
    """
    name, options = split_options(text)
    return preset_spec(name, preset, **{"target": target, "seed": seed, **options})


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its options, as in badnet:size=24,place=middle; the spec checks names and values.

    Raises:
        RvptError: an option without a value, or one called name.
    """
    name, _, options = text.partition(":")
    pairs = [option.partition("=") for option in options.split(",") if option]
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise RvptError(f"{text}: write {name}:OPTION=VALUE,OPTION=VALUE")
        if key.strip() == "name":
            raise RvptError(f"{text}: the name is written before the colon; remove the option name")
    return name, {key.strip(): value.strip() for key, _, value in pairs}

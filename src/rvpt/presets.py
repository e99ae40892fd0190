"""Presets: a CLIP of 150 million parameters needs other settings than one of two million."""

from __future__ import annotations

from typing import Literal, get_args

from rvpt.errors import RvptError

Preset = Literal["auto", "paper", "small"]
LARGE = 50_000_000
"""Models with at least this many parameters, not counting token embeddings, use the paper's settings."""


def choose_preset(asked: Preset, parameters: int) -> Literal["paper", "small"]:
    """The preset to use: "auto" is "paper" for models with `LARGE` parameters or more, otherwise "small".

    Raises:
        RvptError: an unknown preset.
    """
    if asked not in get_args(Preset):
        raise RvptError(f"unknown preset {asked!r}: choose from {', '.join(get_args(Preset))}")
    if asked != "auto":
        return asked
    return "paper" if parameters >= LARGE else "small"

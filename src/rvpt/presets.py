"""Presets: a CLIP of 150 million parameters needs other settings than one of two million."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rvpt.errors import RvptError

Preset = Literal["auto", "paper", "small"]
CleanPreset = Literal["auto", "paper", "small", "coop"]
"""Presets of defenses: coop is the paper's with what the code that it builds on, CoOp's, adds; few defenses have it."""
LARGE = 50_000_000
"""Models with at least this many parameters, not counting token embeddings, use the paper's settings."""


def choose_preset(asked: str, parameters: int, known: Iterable[str] = ("paper", "small")) -> str:
    """The preset to use: "auto" is "paper" for models with `LARGE` parameters or more, otherwise "small".

    Raises:
        RvptError: a preset that is not `known`.
    """
    if asked not in (known := ("auto", *known)):
        raise RvptError(f"unknown preset {asked!r}: choose from {', '.join(known)}")
    if asked != "auto":
        return asked
    return "paper" if parameters >= LARGE else "small"

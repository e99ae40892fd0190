"""Presets: what suits a CLIP of 150 million parameters does not suit one of two million."""

from __future__ import annotations

from typing import Literal

Preset = Literal["auto", "paper", "small"]
LARGE = 50_000_000
"""Parameters, token embeddings left out, from which the paper's settings are used."""


def choose_preset(asked: Preset, parameters: int) -> Literal["paper", "small"]:
    """The preset to use: "auto" takes "paper" for models of `LARGE` parameters or more, else "small"."""
    if asked != "auto":
        return asked
    return "paper" if parameters >= LARGE else "small"

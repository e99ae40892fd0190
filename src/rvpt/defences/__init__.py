"""Defences: a backdoored CLIP and a few clean pictures in, a Cleaned out."""

from rvpt.defences.cleaned import Cleaned, load_model
from rvpt.defences.tuning import clean

__all__ = ["Cleaned", "clean", "load_model"]

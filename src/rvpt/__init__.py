"""Repulsive Visual Prompt Tuning: clean a backdoored CLIP with a handful of labelled images."""

__version__ = "0.1.0"

"""Whole jobs, from names to artifacts on disk: what commands, recipes and the demo share."""

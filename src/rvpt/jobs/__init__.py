"""Whole jobs, from names to artifacts on disk: what the commands call."""

from rvpt.jobs.attacking import attack_and_save, craft_and_save
from rvpt.jobs.cleaning import clean_and_save
from rvpt.jobs.gallery import trigger_gallery
from rvpt.jobs.measuring import evaluate_saved, row_facts
from rvpt.jobs.protocols import HeldOut
from rvpt.jobs.training import pretrain_and_save

__all__ = [
    "HeldOut",
    "attack_and_save",
    "clean_and_save",
    "craft_and_save",
    "evaluate_saved",
    "pretrain_and_save",
    "row_facts",
    "trigger_gallery",
]

"""Evaluation: metrics, and protocols to measure a model. A new protocol goes into PROTOCOLS."""

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.evaluation.base import Protocol

PROTOCOLS: "Registry[type[Protocol]]" = Registry(
    "protocol",
    {
        "classification": "rvpt.evaluation.classification:Classification",
        "retrieval": "rvpt.evaluation.retrieval:Retrieval",
        "captioning": "rvpt.evaluation.captioning:Captioning",
        "adversarial": "rvpt.evaluation.adversarial:Adversarial",
        "readability": "rvpt.evaluation.probing:Readability",
        "resistivity": "rvpt.evaluation.resistivity:Resistivity",
    },
)
"""Ways to measure a model, by name."""

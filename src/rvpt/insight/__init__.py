"""What happens inside models: each figure's arrays, from models and images. A new figure goes into FIGURES."""

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.insight.subjects import Measure

FIGURES: "Registry[Measure]" = Registry(
    "figure",
    {
        "confusion": "rvpt.insight.confusion:figure",
        "failures": "rvpt.insight.failures:figure",
        "captions": "rvpt.insight.captions:figure",
        "tsne": "rvpt.insight.embedding:figure",
        "resistivity": "rvpt.insight.resistivity:figure",
        "attention": "rvpt.insight.attention:figure",
        "prompts": "rvpt.insight.prompts:figure",
        "encoding": "rvpt.insight.encoding:figure",
    },
)
"""Functions that measure what a figure shows, by the figure's name; `rvpt.report.figures.DRAWINGS` draws it."""

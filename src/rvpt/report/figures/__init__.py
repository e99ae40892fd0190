"""Figures that are drawn from stored arrays, one file each. A new one goes into DRAWINGS."""

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.report.figures.base import Drawing

DRAWINGS: "Registry[Drawing]" = Registry(
    "figure",
    {
        "confusion": "rvpt.report.figures.confusion:DRAWING",
        "failures": "rvpt.report.figures.failures:DRAWING",
        "captions": "rvpt.report.figures.captions:DRAWING",
        "tsne": "rvpt.report.figures.tsne:DRAWING",
        "resistivity": "rvpt.report.figures.resistivity:DRAWING",
        "attention": "rvpt.report.figures.attention:DRAWING",
        "prompts": "rvpt.report.figures.prompts:DRAWING",
        "encoding": "rvpt.report.figures.encoding:DRAWING",
    },
)
"""Drawings by the name of their figure; `rvpt.insight.FIGURES` measures what they show."""

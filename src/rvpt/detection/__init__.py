"""Detection: whether a model is backdoored, and which images have a trigger. A new score of images goes into SCORES."""

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.detection.evidence import Score

SCORES: "Registry[Score]" = Registry(
    "score",
    {
        "disagreement": "rvpt.detection.disagreement:SCORE",
        "strip": "rvpt.detection.strip:SCORE",
    },
)
"""Ways in which a monitor scores images, by name."""

"""What a drawing of stored arrays is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rvpt.report.stored import Stored


@dataclass(frozen=True)
class Drawing:
    """How a stored figure is drawn.

    `title`, `caption`: what readers see.
    `draw`: makes a matplotlib figure, and puts tooltips of its marks into a dictionary.
    `describe`: the figure in words, with its main numbers.
    """

    title: str
    caption: str
    draw: Callable[[Stored, dict[str, str]], Any]
    describe: Callable[[Stored], str]

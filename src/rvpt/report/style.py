"""The look of all figures: colors that color-blind readers can tell apart, and plain axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rvpt.rows import BEFORE, CLEAN

INK, MUTED, LINE = "#1c2127", "#5d6670", "#d7dce1"
"""Text, secondary text, and grid lines; a page replaces them by those of its theme."""
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d31", "#7a5195", "#a1a100")
"""Okabe and Ito's colors (2008) without their vermilion, and some more."""
ATTACKED, CLEAN_MODEL = "#d55e00", "#7f8790"
"""Of the backdoored model, and of the model before the attack."""
OWN = {BEFORE: CLEAN_MODEL, CLEAN: ATTACKED, "backdoored": ATTACKED, "rvpt": PALETTE[0], "vpt": PALETTE[1]}
MARKERS = "osD^vP<>Xp"
RC = {
    "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.edgecolor": LINE, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": 9,
    "lines.linewidth": 1.8, "savefig.dpi": 110, "text.parse_math": False,
    "svg.fonttype": "none", "svg.hashsalt": "rvpt",
}  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are made and saved inside have this look."""
    from matplotlib import rc_context

    with rc_context(RC):  # type: ignore[arg-type, unused-ignore]
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def looks(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Color and marker of each name: models and defenses have their own, others the next that is free."""
    free = [color for color in PALETTE if color not in [OWN.get(name) for name in names]]
    colors = dict(OWN)
    for name in names:
        if name not in colors:
            colors[name] = free[(len(colors) - len(OWN)) % len(free)]
    return {name: {"color": colors[name], "marker": MARKERS[place % len(MARKERS)]} for place, name in enumerate(names)}


def tip(artist: Any, text: str, tips: dict[str, str]) -> None:
    """Give a mark of a figure a tooltip, which pages show; `tips` collects them by the mark's identifier."""
    name = f"tip-{len(tips)}"
    tips[name] = text
    artist.set_gid(name)

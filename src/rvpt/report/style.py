"""The look of all figures: colors that color-blind readers can tell apart, and plain axes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any, NamedTuple

from rvpt.defenses import DEFENSES
from rvpt.rows import BEFORE, CLEAN

INK, MUTED, LINE = "#1c2127", "#5d6670", "#d7dce1"
"""Text, secondary text, and grid lines; a page replaces them by those of its theme."""
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d31", "#7a5195", "#a1a100")
"""Okabe and Ito's colors (2008) without their vermilion, and some more."""
ATTACKED, CLEAN_MODEL = "#d55e00", "#7f8790"
"""Of the backdoored model, and of the model before the attack."""
OWN = {
    BEFORE: CLEAN_MODEL, CLEAN: ATTACKED, "backdoored": ATTACKED, "rvpt": PALETTE[0], "vpt": PALETTE[1],
}  # fmt: skip
MARKERS = "osD^vP<>Xp"
LETTER, HANDLE, LINE_HEIGHT = 0.075, 0.55, 0.19  # of a legend, in inches: a letter, a mark with its gaps, a line
RC = {
    "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.edgecolor": LINE, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": 9,
    "lines.linewidth": 1.8, "savefig.dpi": 110, "text.parse_math": False,
    "svg.fonttype": "none", "svg.hashsalt": "rvpt",
}  # fmt: skip

OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic",
    "WenQuanYi Zen Hei", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip
"""Fonts for names of classes that the first one has no letters for, where they are installed."""


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are made and saved inside have this look."""
    from matplotlib import rc_context
    from matplotlib.font_manager import get_font_names

    there = {*get_font_names()}
    family = ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in there)]
    with rc_context({**RC, "font.family": family}), warnings.catch_warnings():  # type: ignore[arg-type, unused-ignore]
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box is drawn in its place
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class Legend(NamedTuple):
    """The labels of a legend, in columns, and how many inches high it is."""

    labels: list[str]
    columns: int
    height: float


def legend_within(width: float, names: Sequence[str], most: int = 4) -> Legend:
    """A legend that is not wider than so many inches: long names are broken into lines, and share fewer columns."""
    labels = ["\n".join(wrap(name, int((width - HANDLE) / LETTER))) for name in names]
    lines = [label.split("\n") for label in labels]
    widest = HANDLE + LETTER * max(len(line) for label in lines for line in label)
    columns = max(1, min(most, len(names), int(width / widest)))
    rows = -(-len(names) // columns)
    return Legend(labels, columns, LINE_HEIGHT * rows * max(map(len, lines)))


def looks(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Color and marker of each name: defenses look the same in all figures, other names get what is left."""
    others = [name for name in DEFENSES if name not in OWN]
    known = {**OWN, **dict(zip(others, PALETTE[2:], strict=False))}
    order, free = list(known), [color for color in PALETTE if color not in [known.get(name) for name in names]]
    found = {}
    for name in names:
        if name not in known:
            known[name] = (free or PALETTE)[(len(known) - len(order)) % len(free or PALETTE)]
        place = list(known).index(name)
        found[name] = {"color": known[name], "marker": MARKERS[place % len(MARKERS)]}
    return found


def tip(artist: Any, text: str, tips: dict[str, str]) -> None:
    """Give a mark of a figure a tooltip, which pages show; `tips` collects them by the mark's identifier."""
    name = f"tip-{len(tips)}"
    tips[name] = text
    artist.set_gid(name)

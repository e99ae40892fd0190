"""The paper's numbers for comparison: ViT-B/32, Zhang et al. (arXiv 2412.20392)."""

from __future__ import annotations

from collections.abc import Sequence

from rvpt.errors import RvptError
from rvpt.report.cells import Cell, cells
from rvpt.report.groups import by_data
from rvpt.rows import Row

CALTECH101 = {  # table 2: (attack, defense) -> (CA, ASR), in percent
    ("badnet", "none"): (93.06, 91.38), ("blended", "none"): (93.41, 92.69),
    ("badnet", "probe"): (93.62, 1.22), ("blended", "probe"): (93.41, 12.82),
    ("badnet", "cleanclip"): (91.18, 36.87), ("blended", "cleanclip"): (90.77, 1.14),
    ("badnet", "rvpt"): (94.02, 0.00), ("blended", "rvpt"): (94.34, 0.00),
}  # fmt: skip
PAPER = {"caltech101": CALTECH101}


def paper_of(data: str) -> dict[tuple[str, str], tuple[float, float]]:
    """The paper's numbers on a data set, however its name is written; empty for others."""
    return PAPER.get("".join(filter(str.isalnum, data.lower())), {})


def beside(data: str, attack: str, defense: str) -> str:
    """The paper's "CA, ASR" of a data set, attack and defense; empty if it has none."""
    known = paper_of(data).get((attack, defense))
    return f"{known[0]:.1f}, {known[1]:.1f}" if known else ""


def comparison(rows: Sequence[Row]) -> str:
    """The paper's table 2 on Caltech-101 beside the rows of every data set: a cell is CA, ASR in %, means over seeds.

    Raises:
        RvptError: no row is of an attack and a defense that the paper has there.
    """
    ours = {data: cells(members).lines for data, members in by_data(rows).items()}
    found = {data: {key: cell for key in CALTECH101 if (cell := _cell(lines, *key))} for data, lines in ours.items()}
    shown = [data for data, values in found.items() if values]
    if not shown:
        raise RvptError("no row is of an attack and a defense of the paper's table 2: pass layout=runs instead")
    lines = [
        f"| attack | defense | paper: Caltech-101 | {' | '.join(shown)} |",
        "|---|---|---:|" + "---:|" * len(shown),
    ]
    for (attack, defense), (ca, asr) in CALTECH101.items():
        values = [found[data].get((attack, defense)) for data in shown]
        texts = [f"{cell.ca:.1f}, {cell.asr:.1f}" if cell else "–" for cell in values]
        lines.append(f"| {attack} | {defense} | {ca:.1f}, {asr:.1f} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _cell(lines: dict[tuple[str, str], dict[str, Cell]], attack: str, defense: str) -> Cell | None:
    """The cell of an attack and a defense, of the first model that has it."""
    return next((line[defense] for (_, name), line in lines.items() if name == attack and defense in line), None)

"""CA and ASR beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence

from rvpt.data.text import cell
from rvpt.errors import RvptError
from rvpt.report.cells import Cell, cells
from rvpt.report.groups import by_data
from rvpt.report.paper import CALTECH101
from rvpt.rows import Row


def comparison(rows: Sequence[Row]) -> str:
    """The paper's table 2 on Caltech-101 beside the rows of every data set: a cell is CA, ASR in %, means over seeds.

    Raises:
        RvptError: no row is of an attack and a defense that the paper has there.
    """
    ours = {data: cells(members).lines for data, members in by_data(rows).items()}
    found = {data: {key: value for key in CALTECH101 if (value := _cell(lines, *key))} for data, lines in ours.items()}
    shown = [data for data, values in found.items() if values]
    if not shown:
        raise RvptError("no row is of an attack and a defense of the paper's table 2: pass layout=runs instead")
    lines = [
        f"| attack | defense | paper: Caltech-101 | {' | '.join(map(cell, shown))} |",
        "|---|---|---:|" + "---:|" * len(shown),
    ]
    for (attack, defense), (ca, asr) in CALTECH101.items():
        values = [found[data].get((attack, defense)) for data in shown]
        texts = [f"{value.ca:.1f}, {value.asr:.1f}" if value else "–" for value in values]
        lines.append(f"| {attack} | {defense} | {ca:.1f}, {asr:.1f} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _cell(lines: dict[tuple[str, str], dict[str, Cell]], attack: str, defense: str) -> Cell | None:
    """The cell of an attack and a defense, of the first model that has it."""
    return next((line[defense] for (_, name), line in lines.items() if name == attack and defense in line), None)

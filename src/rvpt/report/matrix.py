"""The matrix layout: attacks down, defenses across."""

from __future__ import annotations

from collections.abc import Sequence

from rvpt.data.text import cell
from rvpt.errors import RvptError
from rvpt.report.cells import Cell, Cells, cells
from rvpt.report.groups import by_data
from rvpt.report.markdown import across
from rvpt.rows import Row


def matrix(rows: Sequence[Row]) -> str:
    """One table per data set. A cell is CA, ASR in %, means over the seeds, ASR ± its standard deviation.

    The last line is the mean over the attacks that every defense was measured on.

    Raises:
        RvptError: no run has both CA and ASR.
    """
    tables = {data: _table(found) for data, members in by_data(rows).items() if (found := cells(members)).lines}
    if not tables:
        raise RvptError("no run has both CA and ASR: pass layout=runs for other metrics")
    return "\n".join(f"### {cell(data)}\n\n{table}" for data, table in tables.items())


def _table(found: Cells) -> str:
    lines = dict(found.lines)
    if (attacks := len(found.met_by_all)) > 1:
        lines[f"mean of {attacks}", ""] = found.means()
    texts = {attack: {title: _text(one) for title, one in line.items()} for attack, line in lines.items()}
    return across(found.titles, texts)


def _text(cell: Cell) -> str:
    return f"{cell.ca:.1f}, {cell.asr:.1f}" + (f" ± {cell.spread:.1f}" if cell.spread is not None else "")

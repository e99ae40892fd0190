"""rvpt report: tables from rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import command


@command
def report(
    rows: Annotated[list[Path], typer.Argument(help="JSONL files of rows.")],
    out: Annotated[
        Path | None, typer.Option(help="Markdown file to fill between its result marks; else the screen.")
    ] = None,
) -> None:
    """Print markdown tables of rows, mean and standard deviation over seeds."""
    from rvpt.report import results
    from rvpt.report.markdown import between_marks
    from rvpt.store import read_rows, write_text

    text = results([row for path in rows for row in read_rows(path)])
    if out:
        write_text(out, between_marks(out.read_text(encoding="utf-8") if out.is_file() else "", text))
    else:
        print(text)

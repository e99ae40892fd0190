"""rvpt report: tables from rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import LAYOUT
from rvpt.cli.panels import CLEANING
from rvpt.errors import RvptError
from rvpt.files import refuse_existing_file, staged_file, write_text
from rvpt.rows import Rows, read_measurements


@command(CLEANING, lambda: MoreHelp({"layout": LAYOUT.text()}))
def report(
    rows: Annotated[list[Path], typer.Argument(metavar="FILE", help="JSONL files of rows.")],
    layout: Annotated[
        str,
        LAYOUT.option(
            help="Tables: one line per run, attacks x defenses (CA and ASR), the cost of each defense, PA beside the "
            "clean model's, or CA and ASR beside the paper's."
        ),
    ] = "runs",
    seed: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Use only the rows of this seed; repeatable.", show_default="all"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.md",
            help="Write the tables into this Markdown file, between <!-- rows --> and <!-- /rows -->.",
            show_default="the screen",
        ),
    ] = None,
    section: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --output: write between <!-- rows NAME --> and <!-- /rows NAME -->.",
            show_default=False,
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Image to draw: CA against ASR, a color for each defense."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the image of --plot.")] = False,
) -> None:
    """Make Markdown tables from rows, with means and standard deviations over seeds."""
    from rvpt.report import LAYOUTS
    from rvpt.report.markdown import between_marks
    from rvpt.report.tradeoff import draw_tradeoff

    if section and output is None:
        raise RvptError(f"section={section} is a place in a page: pass output=FILE.md too")
    if output and output.resolve() in [path.resolve() for path in rows]:
        raise RvptError(f"{output} holds the rows: choose another file")
    if plot:
        refuse_existing_file(plot, overwrite=overwrite)
    found = _measurements(rows, seed)
    text = LAYOUTS[layout](found)
    if plot:
        with staged_file(plot) as file:
            draw_tradeoff(found, file)
    if output:
        write_text(output, between_marks(_page(output), text, section))
    else:
        print(text)


def _measurements(paths: list[Path], seeds: list[int] | None) -> Rows:
    found = Rows(row for path in paths for row in read_measurements(path) if not seeds or row["seed"] in seeds)
    if not found:
        raise RvptError(f"no row has seed {', '.join(map(str, seeds or ()))}")
    return found


def _page(path: Path) -> str:
    """The text of a page, empty where there is none yet."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError:
        raise RvptError(f"{path} is not UTF-8 text: choose another file") from None

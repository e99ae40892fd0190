"""rvpt report: tables from rows, or a page of all results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import LAYOUT
from rvpt.cli.panels import CLEANING
from rvpt.errors import RvptError
from rvpt.files import refuse_existing_file, staged_file, write_text
from rvpt.rows import Rows

if TYPE_CHECKING:
    from rvpt.report.evidence import Evidence

PAGES, TABLES = (".html", ".htm"), (".md", ".markdown", ".txt")


@command(CLEANING, lambda: MoreHelp({"layout": LAYOUT.text()}))
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS",
            help="JSONL files of rows, and folders of a demo, attack, clean, check, inspect, bench or figures.",
        ),
    ],
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
            "--out",
            "-o",
            metavar="FILE",
            help="FILE.html: write one page with all results. FILE.md: write the tables into this Markdown file, "
            "between <!-- rows --> and <!-- /rows -->.",
            show_default="the screen",
        ),
    ] = None,
    section: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --output FILE.md: write between <!-- rows NAME --> and <!-- /rows NAME -->.",
            show_default=False,
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Image to draw: CA against ASR, a color for each defense."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.html, or the image of --plot.")] = False,
) -> None:
    """Make tables from rows, with means and standard deviations over seeds; or one HTML page of all results."""
    from rvpt.jobs.reporting import gather_results, write_report
    from rvpt.report.markdown import between_marks

    as_page = output is not None and output.suffix.lower() in PAGES
    _refuse_output(output, section, results)
    if as_page and (section or layout != "runs"):
        raise RvptError(f"{output} has all tables: remove {f'section={section}' if section else f'layout={layout}'}")
    if plot:
        _refuse_plot(plot, overwrite=overwrite)
    found = gather_results(results, seed or ())
    tables = "" if as_page else _tables(found, layout)
    text = between_marks(_page(output), tables, section) if output and not as_page else ""
    if plot:
        _draw(_rows(found), plot)
    if output and as_page:
        write_report(found, output, overwrite=overwrite)
    elif output:
        write_text(output, text)
    print(f"report: {output}" if output else tables)


def _refuse_output(output: Path | None, section: str, results: list[Path]) -> None:
    if section and output is None:
        raise RvptError(f"section={section} is a place in a page: pass output=FILE.md too")
    if output and output.suffix.lower() not in PAGES + TABLES:
        raise RvptError(f"output={output} is neither a page nor Markdown: give FILE.html or FILE.md")
    if output and output.resolve() in [path.resolve() for path in results]:
        raise RvptError(f"{output} holds the rows: choose another file")


def _refuse_plot(plot: Path, *, overwrite: bool) -> None:
    if plot.suffix.lower() != ".png":
        raise RvptError(f"plot={plot} is not a PNG file: give FILE.png")
    refuse_existing_file(plot, overwrite=overwrite)


def _rows(found: Evidence) -> Rows:
    if not found.rows:
        raise RvptError(f"no rows for tables in {', '.join(found.sources)}: pass output=report.html")
    return found.rows


def _tables(found: Evidence, layout: str) -> str:
    """The tables of the rows in a layout; in that of runs, the inspections too."""
    from rvpt.report import LAYOUTS
    from rvpt.report.inspections import inspections

    extra = inspections(found.inspections) if layout == "runs" else ""
    tables = LAYOUTS[layout](_rows(found)) if found.rows or not extra else ""
    return "\n".join(filter(None, (tables, extra)))


def _draw(rows: Rows, plot: Path) -> None:
    from rvpt.report.tradeoff import draw_tradeoff

    with staged_file(plot) as file:
        draw_tradeoff(rows, file)


def _page(path: Path) -> str:
    """The text of a page, empty where there is none yet."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError:
        raise RvptError(f"{path} is not UTF-8 text: choose another file") from None

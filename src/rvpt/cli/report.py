"""rvpt report: tables from rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rvpt.cli.app import Force, command
from rvpt.errors import RvptError

KEYS = {"model", "data", "attack", "defense", "seed", "metric", "rate"}


@command
def report(
    rows: Annotated[list[Path], typer.Argument(help="JSONL files of rows.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Markdown file to fill between <!-- rows --> and <!-- /rows -->; else the screen."),
    ] = None,
    section: Annotated[
        str, typer.Option(help="With --out: between <!-- rows NAME --> and <!-- /rows NAME -->, in a page of several.")
    ] = "",
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed.", show_default="all")] = None,
    layout: Annotated[
        str, typer.Option(help="runs (a line each), matrix (attacks x defenses, CA and ASR), or costs (of defenses).")
    ] = "runs",
    image: Annotated[
        Path | None, typer.Option(help="PNG to draw besides: accuracy against attack success, a color a defense.")
    ] = None,
    force: Force = False,
) -> None:
    """Print markdown tables of rows, mean and standard deviation over seeds; --image draws them."""
    from rvpt.report import LAYOUTS
    from rvpt.report.markdown import between_marks
    from rvpt.report.tradeoff import draw_tradeoff
    from rvpt.store import refuse_existing_file, staged_file, write_text

    if section and not out:
        raise RvptError("--section is a place in a page: give --out too")
    if image:
        refuse_existing_file(image, force=force)
    if layout not in LAYOUTS:
        raise RvptError(f"no layout {layout!r}: there are {', '.join(LAYOUTS)}")
    found = [row for path in rows for row in _measurements(path)]
    found = [row for row in found if not seed or row["seed"] in seed]
    if not found:
        raise RvptError(f"no rows of seed {', '.join(map(str, seed or ()))}")
    text = LAYOUTS[layout](found)
    if image:
        with staged_file(image) as file:
            draw_tradeoff(found, file)
    if out:
        write_text(out, between_marks(_page(out), text, section))
    else:
        print(text)


def _page(path: Path) -> str:
    """The text of a page, empty where there is none yet."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError:
        raise RvptError(f"{path} is no text in UTF-8: choose another --out") from None


def _measurements(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, if all of them are measurements and there are some."""
    from rvpt.store import read_rows

    rows = read_rows(path)
    if not rows:
        raise RvptError(f"{path} has no rows: rvpt evaluate --rows writes them")
    for number, row in enumerate(rows, 1):
        if missing := sorted(KEYS - row.keys()):
            raise RvptError(f"{path}, line {number}: no {missing[0]!r}, so it is no row of rvpt evaluate or rvpt bench")
    return rows

"""Reporting as a whole job: files of rows and folders of results in, one HTML file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rvpt.errors import RvptError
from rvpt.files import refuse_existing_file, write_text
from rvpt.report.evidence import Evidence, gather
from rvpt.report.html.page import page
from rvpt.rows import Rows

REPORT = "report.html"


def gather_results(sources: Sequence[Path], seeds: Sequence[int] = ()) -> Evidence:
    """The results in some files and folders, with the rows of some seeds alone if any are given.

    Raises:
        RvptError: a source has no results, or no row has one of the seeds.
    """
    found = gather(sources)
    if seeds:
        found.rows = Rows(row for row in found.rows if row["seed"] in seeds)
        if not found.rows:
            raise RvptError(f"no row has seed {', '.join(map(str, seeds))}")
    return found


def write_report(evidence: Evidence, target: Path, *, overwrite: bool = False) -> None:
    """Write the page of some results.

    Raises:
        RvptError: the file exists and `overwrite` is false.
    """
    refuse_existing_file(target, overwrite=overwrite)
    names = (Path(source).resolve().name for source in evidence.sources)  # "." has none of its own
    write_text(target, page(evidence, f"Report of {', '.join(names)}"))


def write_folder_report(folder: Path, name: str = "") -> Path:
    """Write report.html into a folder of results.

    Args:
        folder: where the results are.
        name: the folder's name in the report, if it will be renamed.

    Returns:
        The path of the report.
    """
    found, target = gather([folder]), folder / REPORT
    found.sources = [name or folder.name]
    write_report(found, target, overwrite=True)
    return target

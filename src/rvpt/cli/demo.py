"""rvpt demo: the whole story in a few minutes, without network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import command
from rvpt.cli.options import Device, Json, Overwrite, Seed
from rvpt.cli.panels import CLEANING
from rvpt.cli.tables import show_demo, show_json, show_verdicts


@contextmanager
def announced(title: str) -> Iterator[progress.Report]:
    """A bar on a terminal; elsewhere a line when a stage begins."""
    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
    with progress.bar(title) as report:
        yield report


@command(CLEANING)
def demo(
    output_dir: Annotated[
        Path,
        typer.Option("--output-dir", "-o", metavar="FOLDER", help="Folder for checks, models, rows and the report."),
    ] = Path("rvpt-demo"),
    attack: Annotated[
        bool,
        typer.Option("--attack", help="Backdoor the clean model now, instead of using the one that ships with rvpt."),
    ] = False,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Check a clean and a backdoored model, clean the backdoored one, and check it again.

    Both models ship with rvpt. The demo needs no network and no GPU, and takes a few minutes.
    """
    from rvpt.demo import run

    story = run(output_dir, seed, announced, live=attack, device=device, overwrite=overwrite)
    verdicts = {name.replace("-", " "): verdict.to_dict() for name, verdict in story.verdicts.items()}
    if as_json:
        show_json({"checks": verdicts, "rows": story.rows})
        return
    show_verdicts(verdicts)
    show_demo(story.rows)
    print(f"report: {output_dir / 'report.html'}; image: {output_dir / 'demo.png'}")
    print(f"rows, checks and models: {output_dir}")

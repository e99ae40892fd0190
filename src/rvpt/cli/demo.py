"""rvpt demo: the whole story in a few minutes, without network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import command
from rvpt.cli.options import Device, Json, Overwrite, Seed
from rvpt.cli.panels import CLEANING
from rvpt.cli.tables import show_demo, show_json


@command(CLEANING)
def demo(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", metavar="FOLDER", help="Folder for models, rows and the image.")
    ] = Path("rvpt-demo"),
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Backdoor the model that ships with rvpt, clean it with VPT and with RVPT, and show what changed.

    It needs no network and no GPU, and takes a few minutes.
    """
    from rvpt.demo import run

    rows = run(output_dir, seed, progress.bar, device=device, overwrite=overwrite)
    if as_json:
        show_json(rows)
        return
    show_demo(rows)
    print(f"image: {output_dir / 'demo.png'}; rows: {output_dir / 'rows.jsonl'}; models: {output_dir}")

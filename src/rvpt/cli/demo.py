"""rvpt demo: the whole story in a few minutes, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import Force, Json, Seed, command
from rvpt.cli.tables import show_demo, show_rows


@command
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write models, rows and the image into.")] = Path("rvpt-demo"),
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Backdoor the embedded CLIP with two triggers, clean it by VPT and by RVPT, and show what happened."""
    from rvpt.demo import run
    from rvpt.progress import bar

    rows = run(out, seed, bar, force=force)
    if as_json:
        show_rows(rows, as_json=True)
        return
    show_demo(rows)
    print(f"rows, models and image: {out / 'rows.jsonl'}, {out}, {out / 'demo.png'}")

"""rvpt triggers: what there is, how visible it is, and a picture of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import Data, Force, Json, Seed, command, named_options
from rvpt.cli.tables import show_triggers


@command
def triggers(
    trigger: Annotated[
        list[str] | None,
        typer.Option(help="NAME or NAME:OPTION=VALUE,...", show_default="all with their defaults"),
    ] = None,
    data: Data = "scenes",
    split: Annotated[str, typer.Option(help="Split of --data to take pictures from.")] = "test",
    size: Annotated[int, typer.Option(min=16, help="Side of the pictures.")] = 224,
    out: Annotated[Path | None, typer.Option(help="PNG to draw: each trigger on the same pictures.")] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the triggers with their options, and how visible each is (PSNR, SSIM); --out draws them."""
    from rvpt.attacks import TRIGGERS
    from rvpt.jobs import trigger_gallery

    found = trigger_gallery(
        [named_options(text) for text in trigger or list(TRIGGERS)], data, split, size, seed=seed, out=out, force=force
    )
    print(json.dumps(found, indent=2)) if as_json else show_triggers(found)
    if out and not as_json:
        print(f"picture: {out}")

"""rvpt triggers: what there is, how visible it is, and a picture of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import Data, Force, Json, Seed, command
from rvpt.cli.attack import asked_trigger
from rvpt.cli.tables import show_triggers


@command
def triggers(
    trigger: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME:OPTION=VALUE,..., or a trigger's folder.",
            show_default="all that are not made for one model",
        ),
    ] = None,
    data: Data = "scenes",
    split: Annotated[str, typer.Option(help="Split of --data to take images from.")] = "test",
    size: Annotated[int, typer.Option(min=16, help="Side of the images.")] = 224,
    out: Annotated[Path | None, typer.Option(help="PNG to draw: each trigger on the same images.")] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the triggers with their options, and how visible each is (PSNR, SSIM); --out draws them."""
    from rvpt.attacks import TRIGGERS
    from rvpt.jobs import trigger_gallery

    crafted = [name for name, kind in TRIGGERS.items() if kind.crafted]
    names = trigger or [name for name in TRIGGERS if name not in crafted]
    asked = [asked_trigger(text, "", seed, {}) for text in names]
    found = trigger_gallery(asked, data, split, size, out=out, force=force)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    show_triggers(found)
    print("sizes are the defaults; presets of rvpt attack have others. Made for one model, by rvpt craft:")
    for name in crafted:
        options = [
            option for option in TRIGGERS[name].Spec.model_fields if option not in ("name", "target", "seed", "mode")
        ]
        print(f"  {name}: {', '.join(options)}")
    if out:
        print(f"image: {out}")

"""rvpt triggers: the triggers, their options, how visible they are, and an image of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rvpt.cli.app import command
from rvpt.cli.choices import TRIGGER
from rvpt.cli.describe import describe
from rvpt.cli.listing import plain_table, settings_table
from rvpt.cli.options import DATA, Json, OnErrors, Overwrite, Seed
from rvpt.cli.panels import LISTS
from rvpt.cli.tables import show_json, show_table

HEADINGS = ("trigger", "what it is", "optimized for one model", "PSNR (dB)", "SSIM")
COMMON = """\
All triggers also have the options target, seed and preset, which default to those of the command.
preset chooses one of those named beside the defaults, as in --trigger badclip:preset=published."""


@command(LISTS)
def triggers(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRIGGER",
            help="Only these: NAME, NAME:OPTION=VALUE,..., or a trigger's folder.",
            show_default="all",
            autocompletion=TRIGGER.complete,
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Image to draw: each trigger on the same images.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    data: Annotated[
        str, typer.Option(metavar="DATA", help="Data set to take images from.", rich_help_panel=DATA)
    ] = "scenes",
    split: Annotated[str, typer.Option(help="Split of the data.", rich_help_panel=DATA)] = "test",
    on_error: OnErrors = "stop",
    size: Annotated[int, typer.Option(min=16, help="Side of the images in pixels.", rich_help_panel=DATA)] = 224,
    as_json: Json = False,
) -> None:
    """List the triggers for 'rvpt attack --trigger', their options, and how visible they are.

    PSNR and SSIM are means over a few images, with preset paper unless options say otherwise; the higher, the harder a
    trigger is to see. To measure a trigger that is optimized for one model, pass its folder.
    """
    from rvpt.attacks import TRIGGERS
    from rvpt.cli.trigger_option import find_trigger
    from rvpt.jobs.gallery import trigger_gallery

    crafted = [text for text in names or TRIGGERS if text in TRIGGERS and TRIGGERS[text].crafted]
    asked = [find_trigger(text, "paper", "", seed) for text in names or TRIGGERS if text not in crafted]
    measured = (
        trigger_gallery(asked, data, split, size, on_error=on_error, plot=plot, overwrite=overwrite) if asked else []
    )
    found = [*(_described(**each) for each in measured), *(_described(name) for name in crafted)]
    if as_json:
        show_json(found)
        return
    show_table(plain_table(HEADINGS, _lines(found)))
    for each in {each["name"]: each for each in found}.values():
        print()
        show_table(settings_table(each["settings"], f"{each['name']}: --trigger {each['name']}:OPTION=VALUE,..."))
    print(f"\n{COMMON}")
    if plot:
        print(f"image: {plot}")


def _described(name: str, **measured: Any) -> dict[str, Any]:
    from rvpt.attacks import TRIGGERS

    kind = TRIGGERS[name]
    return {
        "name": name,
        "summary": kind.summary,
        "crafted": kind.crafted,
        "psnr": None,
        "ssim": None,
        **measured,
        "settings": describe(kind.Spec, kind.presets(), without=("name", "target", "seed")),
    }


def _lines(found: Sequence[dict[str, Any]]) -> Iterator[Sequence[str]]:
    for each in found:
        rates = ["-", "-"] if each["psnr"] is None else [f"{each['psnr']:.1f}", f"{each['ssim']:.3f}"]
        yield [each["name"], each["summary"], "yes" if each["crafted"] else "no", *rates]

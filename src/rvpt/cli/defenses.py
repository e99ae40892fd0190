"""rvpt defenses: the defenses and their settings."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rvpt.cli.app import command
from rvpt.cli.choices import DEFENSE
from rvpt.cli.describe import describe
from rvpt.cli.listing import chosen, plain_table, settings_table
from rvpt.cli.options import Json
from rvpt.cli.panels import LISTS
from rvpt.cli.tables import show_json, show_table


@command(LISTS)
def defenses(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these.", show_default="all", autocompletion=DEFENSE.complete),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the defenses for 'rvpt clean --defense', and the settings that --set takes."""
    from rvpt.defenses import DEFENSES

    found = [_described(name, kind) for name, kind in chosen(names, DEFENSES).items()]
    if as_json:
        show_json(found)
        return
    headings = ("defense", "what is trained", "learns from")
    show_table(plain_table(headings, ([each[key] for key in ("name", "summary", "learns_from")] for each in found)))
    for each in found:
        print()
        show_table(settings_table(each["settings"], f"{each['name']}: rvpt clean --defense {each['name']}"))


def _described(name: str, kind: Any) -> dict[str, Any]:
    return {
        "name": name,
        "summary": kind.summary,
        "learns_from": kind.learns(),
        "published_pairs": kind.published_pairs or None,
        "has_head": kind.has_head,
        "settings": describe(kind.Spec, kind.presets()),
    }

"""rvpt protocols: the protocols and their settings."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rvpt.cli.app import command
from rvpt.cli.choices import PROTOCOL
from rvpt.cli.describe import describe
from rvpt.cli.listing import chosen, plain_table, settings_table
from rvpt.cli.options import Json
from rvpt.cli.panels import LISTS
from rvpt.cli.tables import show_json, show_table


@command(LISTS)
def protocols(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these.", show_default="all", autocompletion=PROTOCOL.complete),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the protocols for 'rvpt evaluate --protocol', and the settings that --set takes."""
    from rvpt.evaluation import PROTOCOLS

    found = [_described(name, kind) for name, kind in chosen(names, PROTOCOLS).items()]
    if as_json:
        show_json(found)
        return
    lines = ([each["name"], each["summary"], each["needs"], "yes" if each["uses_triggers"] else "no"] for each in found)
    show_table(plain_table(("protocol", "what is measured", "the data need", "triggers"), lines))
    for each in found:
        if each["settings"]:
            print()
            show_table(settings_table(each["settings"], f"{each['name']}: rvpt evaluate --protocol {each['name']}"))


def _described(name: str, kind: Any) -> dict[str, Any]:
    return {
        "name": name,
        "summary": kind.summary,
        "needs": kind.needs,
        "uses_triggers": kind.uses_triggers,
        "batch_size": kind.batch_size,
        "settings": describe(kind.Settings),
    }

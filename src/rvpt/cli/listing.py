"""Lists of what there is, and of what can be set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from rvpt.cli.describe import by_preset
from rvpt.registry import Registry

Setting = Mapping[str, Any]
"""One of `rvpt.cli.describe.describe`."""


def chosen(names: Sequence[str] | None, registry: Registry[Any]) -> dict[str, Any]:
    """The entries of these names, by default all.

    Raises:
        RvptError: an unknown name.
    """
    return {name: registry.find(name) for name in names or registry}


def settings_table(settings: Iterable[Setting], title: str | None = None) -> Table:
    """A line for each setting: its default, its values and what it is."""
    return plain_table(
        ("setting", "default", "values", "what it is"),
        ((each["name"], by_preset(each["default"]), each["values"], each["description"]) for each in settings),
        title,
    )


def show_settings_panel(settings: Iterable[Setting], title: str) -> None:
    """Print settings in a panel that looks like those of `--help`."""
    panel = Panel(settings_table(settings), title=title, title_align="left", border_style="dim")
    Console(highlight=False).print(panel)


def plain_table(headings: Sequence[str], lines: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """A table of texts."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*(str(cell) for cell in line))
    return table

"""Options whose choices are read when they are needed: what a plugin registers is accepted, completed and shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer


@dataclass(frozen=True)
class Choice:
    """The names of a registry, which is imported when they are first needed.

    Args:
        place: of the registry, as "module:attribute".
    """

    place: str

    def names(self) -> list[str]:
        """All names, in the registry's order."""
        module, _, attribute = self.place.partition(":")
        found: Iterable[str] = getattr(import_module(module), attribute)
        return list(found)

    def parse(self, text: str) -> str:
        """The text, if it is one of the names."""
        if text not in self.names():
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(self.names())}.")
        return text

    def complete(self, incomplete: str) -> list[str]:
        """The names that begin so."""
        return [name for name in self.names() if name.startswith(incomplete)]

    def text(self) -> str:
        """The names for an option's help."""
        return f"one of: {', '.join(self.names())}"

    def option(self, *declarations: str, help: str, panel: str | None = None) -> Any:
        """A typer option that takes one of the names."""
        return typer.Option(
            *declarations,
            help=help,
            parser=self.parse,
            autocompletion=self.complete,
            metavar="NAME",
            rich_help_panel=panel,
        )


DEFENSE = Choice("rvpt.defenses:DEFENSES")
PROTOCOL = Choice("rvpt.evaluation:PROTOCOLS")
TRIGGER = Choice("rvpt.attacks:TRIGGERS")
EVASION = Choice("rvpt.evasions:EVASIONS")
SHIFT = Choice("rvpt.data.shifts:SHIFTS")
PRETRAINING = Choice("rvpt.training.pretrain:PRESETS")
SCORE = Choice("rvpt.detection:SCORES")
EXPORT = Choice("rvpt.exports:EXPORTS")
LAYOUT = Choice("rvpt.report:LAYOUTS")
FIGURE = Choice("rvpt.report.figures:DRAWINGS")

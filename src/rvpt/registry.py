"""Registries of what can be chosen by name. An entry "module:attribute" is imported when it is first used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar, cast

from rvpt.errors import RvptError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Entries by name, in the order in which reports, help and docs show them.

    Listing the names imports nothing, so `rvpt --help` is fast.
    """

    def __init__(self, kind: str, entries: Mapping[str, T | str]) -> None:
        self.kind, self._entries = kind, dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            KeyError: there is none; `find` raises an error with a readable message.
        """
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._entries[name] = cast(T, getattr(import_module(module), attribute))
        return entry

    def find(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            RvptError: there is none; the message lists the names.
        """
        if name not in self._entries:
            raise RvptError(f"unknown {self.kind} {name!r}: choose from {', '.join(self)}")
        return self[name]

    def register(self, name: str, entry: T | str) -> None:
        """Add an entry, or replace the one with that name."""
        self._entries[name] = entry

    def unregister(self, name: str) -> None:
        """Remove an entry."""
        del self._entries[name]

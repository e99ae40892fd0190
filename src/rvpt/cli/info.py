"""rvpt info: what a model is, without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rvpt.cli.app import command
from rvpt.cli.options import Activation, Json, Revision, Source
from rvpt.cli.panels import MODELS
from rvpt.cli.tables import show_facts


@command(MODELS)
def info(
    source: Source,
    activation: Activation = None,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Describe a model: layout, geometry, dtype, tokenizer, preprocessing, hashes, and skipped entries."""
    from rvpt.jobs.converting import inspect

    facts = inspect(source, activation=activation, revision=revision)
    show_facts(facts if as_json else dict(_lines(facts)), as_json=as_json)


def _lines(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as lines: "tokenizer, class"."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{above}{name}, ")
        elif value not in (None, []):
            yield f"{above}{name}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)

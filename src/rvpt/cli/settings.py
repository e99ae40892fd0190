"""`--set KEY=VALUE`: settings without an option of their own, checked by the spec that has them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rvpt.errors import RvptError
from rvpt.spec import Spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Settings = dict[str, Any]


def gather(texts: Sequence[str] | None, **options: Any) -> Settings:
    """The options that were given, those that are not None, and what `--set` adds.

    Raises:
        RvptError: a text is not KEY=VALUE, or a key is given twice.
    """
    found = {name: value for name, value in options.items() if value is not None}
    for text in texts or ():
        key, sign, value = text.partition("=")
        key = key.strip()
        if not (key and sign):
            raise RvptError(f"--set {text}: write KEY=VALUE, as in --set weight_decay=0.1")
        if key in found:
            raise RvptError(f"{key} is given twice: give it once, as an option or by --set")
        found[key] = parse(value.strip())
    return found


def parse(text: str) -> Any:
    """A value as TOML reads it (true, 3, 0.1, "text", [1, 2]); what is not TOML, a date or a table is text."""
    try:
        value = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    plain = value.keys() == {"value"} and isinstance(value["value"], bool | int | float | str | list)
    return value["value"] if plain else text


def divide(settings: Settings, *specs: type[Spec]) -> list[Settings]:
    """The settings of each spec; one that several have goes to the first.

    Raises:
        RvptError: none has it.
    """
    parts: list[Settings] = [{} for _ in specs]
    for key, value in settings.items():
        owners = [part for part, spec in zip(parts, specs, strict=True) if key in spec.model_fields]
        if not owners:
            known = dict.fromkeys(name for spec in specs for name in spec.model_fields)
            raise RvptError(f"{key}: unknown setting: choose from {', '.join(known)}")
        owners[0][key] = value
    return parts

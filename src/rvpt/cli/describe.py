"""Settings in words: what a spec's fields are called, their defaults, ranges and descriptions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rvpt.spec import Spec

HUGE = 2**60  # bounds that nobody reaches are not worth a word
BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
Presets = Mapping[str, Mapping[str, Any]]
"""What each preset changes of a spec's defaults."""


def describe(spec: type[Spec], presets: Presets | None = None, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """What can be set: a record of name, default, values and description for each field; fields that cannot be
    changed, because they have one value, are left out.

    `default` is the value, or with several presets that of the first and of those that change it.
    """
    return [
        {
            "name": name,
            "default": _default(spec, name, presets),
            "values": values(field),
            "description": _description(spec, name),
        }
        for name, field in spec.model_fields.items()
        if name not in without and len(_literals(field.annotation)) != 1
    ]


def default_texts(spec: type[Spec], presets: Presets, names: Iterable[str]) -> dict[str, str]:
    """For the help of options, such as {"lr": "default: 0.002 (paper), 0.03 (small)"}."""
    return {name: f"default: {by_preset(_default(spec, name, presets))}" for name in names}


def by_preset(default: Any) -> str:
    """A default in words: one value, or that of each preset if they differ."""
    default = _collapsed(default) if isinstance(default, Mapping) else default
    if not isinstance(default, Mapping):
        return number(default)
    return ", ".join(f"{number(value)} ({preset})" for preset, value in default.items())


def number(value: Any) -> str:
    """A value as one would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(number, value)) or "[]"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("\n", "\\n")


def values(field: FieldInfo) -> str:
    """Which values a field has: its choices, or its type and range."""
    if literals := _literals(field.annotation):
        return ", ".join(map(str, literals))
    bounds = [
        f"{sign} {number(bound)}"
        for name, sign in BOUNDS
        for each in field.metadata
        if (bound := getattr(each, name, None)) is not None and bound < HUGE
    ]
    return " ".join([_type(field.annotation), ", ".join(bounds)]).strip()


def _default(spec: type[Spec], name: str, presets: Presets | None) -> Any:
    own = spec.model_fields[name].default
    own = "required" if own is PydanticUndefined else own
    found = {preset: changes.get(name, own) for preset, changes in (presets or {}).items()}
    first = next(iter(found), "")
    found = {preset: value for preset, value in found.items() if preset == first or value != found[first]}
    return _collapsed(found) if found else own


def _collapsed(found: Mapping[str, Any]) -> Any:
    """The value that all presets have, or that of each."""
    first = next(iter(found.values()))
    return first if all(value == first for value in found.values()) else found


def _description(spec: type[Spec], name: str) -> str:
    """The field's own description, or that of the same field in a spec that this one extends."""
    kinds = [kind for kind in spec.__mro__ if issubclass(kind, Spec) and name in kind.model_fields]
    return next((text for kind in kinds if (text := kind.model_fields[name].description)), "")


def _type(annotation: Any) -> str:
    if get_origin(annotation) is tuple:
        return "names, joined by commas"
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType] or [annotation]
    return {int: "integer", float: "number", bool: "true, false", str: "text"}.get(kinds[0], "")


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()

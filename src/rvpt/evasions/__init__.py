"""Attackers who know a defense, to measure what it is worth against them. A new one is a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.attacks.evasion import Evasion

EVASIONS: Registry[type[Evasion]] = Registry(
    "evasion",
    {"prompts": "rvpt.evasions.prompts:PromptEvasion", "changes": "rvpt.evasions.changes:ChangeEvasion"},
)
"""By name, in the order in which docs show them."""


def evasion(name: str, **settings: Any) -> Evasion:
    """The evasion called `name`, for `rvpt.attack(..., evasion=...)`.

    Raises:
        RvptError: there is none, or it has no such setting.
    """
    return EVASIONS.find(name)(**settings)

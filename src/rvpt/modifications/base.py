"""The contract of a modification: a model in, a modified copy out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rvpt.data.dataset import Dataset
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.spec import Spec


@dataclass(frozen=True)
class Material:
    """What modifications work with: the suspect that was cleaned, and clean image-caption pairs."""

    suspect: Clip
    pairs: Dataset
    report: Report = silent


@dataclass(frozen=True)
class Modification:
    """One way in which a model changes after it was cleaned.

    Args:
        summary: its line in the docs.
        Settings: what can be set.
        apply: (a copy of the model to change, settings, material) -> the modified model.
    """

    summary: str
    Settings: type[Spec]
    apply: Callable[[Cleaned, Any, Material], Clip | Cleaned]

    def __call__(self, model: Cleaned, material: Material, **settings: Any) -> Clip | Cleaned:
        """The modified model; `model` is not changed.

        Raises:
            RvptError: a setting that it does not have, or a model that it cannot modify.
        """
        return self.apply(own_copy(model), self.Settings(**settings), material)


def own_copy(model: Cleaned) -> Cleaned:
    """A copy whose weights count as its own. The keys and values of its prompts stay as they are when weights change,
    as in an export, which stores them, until the copy is moved, converted or saved, which compute them again."""
    copied = copy.deepcopy(model)
    copied.own_weights = True
    return copied

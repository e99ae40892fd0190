"""A linear classifier on image features, which replaces the classes' text features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpt.data.text import first_names, plain
from rvpt.errors import RvptError


@dataclass(frozen=True)
class Head:
    """Logits tau W [f, 1] for the classes it was trained on: W is `rows` (K, P + 1), f unit features (B, P)."""

    classes: tuple[str, ...]
    rows: Tensor

    def of(self, names: Sequence[str]) -> Tensor:
        """The rows (len(names), P + 1) of some classes.

        Raises:
            RvptError: it was not trained on one of them.
        """
        known = {plain(name): row for row, name in enumerate(self.classes)}
        if unknown := [name for name in names if plain(name) not in known]:
            raise RvptError(
                f"class {unknown[0]!r}: this model has its own classifier, which was not trained on it; it knows "
                f"{first_names(self.classes)}"
            )
        return self.rows[[known[plain(name)] for name in names]]

    def logits(self, features: Tensor, logit_scale: Tensor) -> Tensor:
        """tau W [f, 1], (B, K), of unit features (B, P)."""
        return logit_scale * with_one(features) @ self.rows.to(features).T


def with_one(features: Tensor) -> Tensor:
    """Features (B, P) followed by a constant 1, (B, P + 1), for a classifier with a bias."""
    return torch.cat([features, features.new_ones(features.shape[0], 1)], dim=1)

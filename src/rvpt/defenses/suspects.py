"""The changes that unlearning starts from: towards suspected targets, or towards those that a short scan finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.data.text import find_class, first_names
from rvpt.errors import RvptError
from rvpt.inversion.descent import reached, short_run
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec


def named(names: Sequence[str], targets: Sequence[str]) -> Tensor:
    """The indices (M,) int64 of suspected targets among the classes with images, each once.

    Raises:
        RvptError: one is not among them.
    """
    found = {target: find_class(names, target) for target in targets}
    for target, index in found.items():
        if index is None:
            known = first_names(names)
            raise RvptError(f"targets: there are no clean images of class {target!r}: choose from {known}")
    return torch.tensor(list(dict.fromkeys(found.values())), dtype=torch.int64)


def scan(forms: Sequence[Form], pool: Pool, count: int, spec: InversionSpec) -> tuple[Tensor, list[Tensor]]:
    """The `count` most suspicious classes (M,), and the changes (M, ...) of each form towards them.

    For K classes and a pool of n images, each form takes K (steps * images + n) forward passes of an image, and
    K * steps * images backward passes.
    """
    every = torch.arange(len(pool.text), device=pool.pixels.device)
    changes = [short_run(form, pool, every, spec) for form in forms]
    classes = most_suspicious(forms, pool, changes, spec)[:count]
    return classes, [found[classes] for found in changes]


def most_suspicious(forms: Sequence[Form], pool: Pool, changes: Sequence[Tensor], spec: InversionSpec) -> Tensor:
    """All classes (K,), those first whose margin is the largest outlier in one of the forms.

    s_c = max over forms of (m_c - median m) / median |m - median m|,  m_c the mean margin of the change towards c

    Args:
        forms: F of them.
        pool: the images.
        changes: of each form (K, ...), one towards each class.
        spec: seed and batch size.
    """
    every, pairs = torch.arange(len(pool.text), device=pool.pixels.device), zip(forms, changes, strict=True)
    margins = torch.stack([reached(form, pool, every, change, spec).margins for form, change in pairs])  # (F, K)
    excess = margins - margins.median(1, keepdim=True).values
    spread = excess.abs().median(1, keepdim=True).values.clamp(min=1e-6)
    return (excess / spread).amax(0).argsort(descending=True)

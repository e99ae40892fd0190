"""Captioned data sets: several as one, and one without some classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError


def mix(parts: Sequence[Dataset]) -> Dataset:
    """Several captioned sets as one, with new row numbers."""
    ends = torch.tensor([len(part) for part in parts]).cumsum(0)
    starts = ends - torch.tensor([len(part) for part in parts])

    def locate(row: int) -> tuple[Dataset, int]:
        part = int(torch.searchsorted(ends, row, right=True))
        return parts[part], row - int(starts[part])

    def read(rows: Tensor, size: int) -> Tensor:
        out = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        for part, start, end in zip(parts, starts.tolist(), ends.tolist(), strict=True):
            mine = (rows >= start) & (rows < end)
            if mine.any():
                out[mine] = part.reader(part.rows[rows[mine] - start], size)
        return out

    def captions(row: int) -> list[str]:
        part, index = locate(row)
        return part.captions(index)

    if len(parts) == 1:
        return parts[0]
    name = "+".join(part.name for part in parts)
    skipped = tuple(f"{part.name}: {reason}" for part in parts for reason in part.skipped)
    return Dataset(name, read, torch.arange(int(ends[-1])), captions_of=captions, skipped=skipped)


def leave_out(data: Dataset, classes: Sequence[str]) -> Dataset:
    """A captioned set without the pairs of some classes, as `Dataset.of_class` finds them.

    Raises:
        RvptError: no pair is of one of them.
    """
    gone = torch.zeros(len(data), dtype=torch.bool)
    for name in classes:
        own = data.of_class(name)
        if not own.any():
            raise RvptError(f"without: {data.name} has no pair of class {name!r}: leave it out of the list")
        gone |= own
    return data.select((~gone).nonzero()[:, 0]) if classes else data

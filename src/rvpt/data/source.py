"""What reading a data set gives, and the contract of a layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

Reader = Callable[[Tensor, int], Tensor]
"""(rows int64 (B,), side) -> images uint8 (B, 3, side, side)."""


class Source(NamedTuple):
    """The parts of a data set, in the order of `rvpt.Dataset`'s fields."""

    name: str
    reader: Reader
    rows: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    captions_of: Callable[[int], list[str]] | None = None
    attributes: Mapping[str, Tensor] = {}
    place_of: Callable[[int], str] | None = None


@dataclass(frozen=True)
class Asked:
    """What to read of a place.

    `split`: None is allowed where there is only one. `config`: one of several data sets, for layouts that have them.
    `caption_column`: None for the first column with a usual name.
    """

    split: str | None = None
    config: str | None = None
    caption_column: str | None = None


@dataclass(frozen=True)
class Layout:
    """One way in which data sets are stored.

    `summary`: one line for the docs. `recognizes`: whether a folder or file is stored so; it opens no image.
    `read`: the split that was asked for; images are opened only when they are read.
    """

    summary: str
    recognizes: Callable[[Path], bool]
    read: Callable[[Path, Asked], Source]

"""Figures on disk: arrays with the facts that explain them, from which a figure is drawn again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvpt.errors import RvptError
from rvpt.files import disk_errors, read_json, share, write_json

FACTS, ARRAYS = ".figure.json", ".safetensors"


@dataclass(frozen=True)
class Stored:
    """What a figure shows.

    `name`: of the figure, in `rvpt.report.figures.DRAWINGS`.
    `arrays`: by name; the drawing documents their shapes.
    `facts`: labels of the axes of the arrays, and `data`, `n`, `seed`, `command`.
    """

    name: str
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


def write_stored(folder: Path, stored: Stored) -> None:
    """Write NAME.safetensors and NAME.figure.json into a folder."""
    from safetensors.numpy import save_file

    path = folder / f"{stored.name}{ARRAYS}"
    with disk_errors(path):
        save_file({name: np.ascontiguousarray(array) for name, array in stored.arrays.items()}, path)
        share(path)
    write_json(folder / f"{stored.name}{FACTS}", {"figure": stored.name, **stored.facts})


def read_stored(path: Path) -> Stored:
    """A figure by its NAME.figure.json; the arrays are beside it.

    Raises:
        RvptError: a file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    facts = read_json(path)
    arrays = path.with_name(path.name.removesuffix(FACTS) + ARRAYS)
    try:
        return Stored(str(facts.pop("figure")), load_file(arrays), facts)
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError) as error:
        raise RvptError(f"{arrays} or {path.name} is missing or damaged ({error}): make the figures again") from None

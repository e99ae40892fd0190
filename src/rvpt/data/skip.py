"""Leaving out images that cannot be read, with a count and a list."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from rvpt.data.dataset import Dataset
from rvpt.data.reading import Unreadable
from rvpt.errors import RvptError
from rvpt.progress import Report, silent

SIDE = 16  # of the images while they are only checked
LISTED = 100  # images that a warning names

logger = logging.getLogger("rvpt")


def skipped_facts(data: Dataset) -> dict[str, list[str]]:
    """What manifests say of images that were left out; nothing if there are none."""
    return {"skipped": list(data.skipped)} if data.skipped else {}


def skip_unreadable(data: Dataset, report: Report = silent) -> Dataset:
    """The set without the images that cannot be read, which `skipped` lists; the others keep their row numbers.

    Reads every image once.

    Raises:
        RvptError: none can be read.
    """
    broken: dict[int, str] = {}
    for part in torch.arange(len(data)).split(256):
        try:
            data.reader(data.rows[part], SIDE)
        except Unreadable as error:
            broken |= error.found
        report(int(part[-1]) + 1, len(data), {})
    if not broken:
        return data
    if len(broken) == len(data):
        raise RvptError(f"{data.name}: none of the {len(data)} images can be read: {next(iter(broken.values()))}")
    listed = tuple(f"image {row} {reason}" for row, reason in sorted(broken.items()))
    more = [f"... and {len(listed) - LISTED} more"] if len(listed) > LISTED else []
    logger.warning(
        "%s: %d of %d images cannot be read and are left out:\n%s",
        data.name, len(listed), len(data), "\n".join(f"  {line}" for line in [*listed[:LISTED], *more]),
    )  # fmt: skip
    kept = torch.isin(data.rows, torch.tensor(list(broken)), invert=True).nonzero()[:, 0]
    return replace(data.select(kept), skipped=(*data.skipped, *listed))

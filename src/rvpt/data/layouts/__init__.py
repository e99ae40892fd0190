"""Layouts: how data sets are stored. A new layout is one file here and one line in LAYOUTS."""

from __future__ import annotations

from pathlib import Path

from rvpt.data.source import Asked, Layout, Source
from rvpt.errors import RvptError
from rvpt.registry import Registry

CARD = "card"
LAYOUTS: Registry[Layout] = Registry(
    "layout",
    {
        "saved": "rvpt.data.layouts.saved:LAYOUT",
        CARD: "rvpt.data.layouts.card:LAYOUT",
        "webdataset": "rvpt.data.layouts.webdataset:LAYOUT",
        "table": "rvpt.data.layouts.table:LAYOUT",
        "parquet": "rvpt.data.layouts.parquet:LAYOUT",
        "folders": "rvpt.data.layouts.folders:LAYOUT",
    },
)
"""By name, in the order in which they are tried."""


def read_place(place: Path, asked: Asked) -> Source:
    """The data set in a folder or file, whatever its layout.

    Raises:
        RvptError: no layout recognizes it, or it cannot be read.
    """
    for name, layout in LAYOUTS.items():
        if layout.recognizes(place):
            if asked.config and name != CARD:
                raise RvptError(f"{place} is one data set: remove :{asked.config}")
            return layout.read(place, asked)
    raise RvptError(
        f"{place} has no images: it needs one subfolder of images per class, Parquet files, WebDataset tars, a CSV "
        "file of image paths, or what save_to_disk wrote"
    )

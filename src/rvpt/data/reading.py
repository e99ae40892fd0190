"""Reading images by row: many at a time, with the place of each image that cannot be read."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rvpt.data.preprocess import to_array
from rvpt.data.source import Reader
from rvpt.errors import MachineError, RvptError, first_line

DECODERS = 8
LISTED = 10  # images that an error names
PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_avif": None, "pillow_jxl": None}
OTHER_SUFFIXES = frozenset({".avif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".svg", ".tif", ".tiff", ".webp"})
"""Suffixes of images that only some installations of Pillow read."""
TRANSIENT = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT, getattr(errno, "ESTALE", -1)}
"""Errors of the machine: the image may be fine."""


class Unreadable(RvptError):
    """Images that cannot be read; `found` has the reason, with the file, of each row."""

    def __init__(self, source: str, found: Mapping[int, str]) -> None:
        self.found = dict(found)
        listed = [f"image {row} {reason}" for row, reason in self.found.items()][:LISTED]
        more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
        if len(found) > 1:
            listed[0] = f"{len(found)} images: {listed[0]}"
        super().__init__(
            f"{source}: {'; '.join(listed)}{more}: fix or remove {'it' if len(found) == 1 else 'them'}, "
            "or leave out images that cannot be read with on_error=skip"
        )


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of all files that Pillow can open, and of other images, which are refused when they are read."""
    return OTHER_SUFFIXES | {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in image_suffixes()


def read_image(content: bytes | str | Path, size: int) -> NDArray[np.uint8]:
    """An encoded image, or the file of one, as uint8 (3, size, size); of several frames the first."""
    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as image:
            return to_array(image, size)
    except UnidentifiedImageError as error:
        if not _plugins():
            raise UnidentifiedImageError("not an image, or damaged") if isinstance(content, bytes) else error from None
    with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as image:
        return to_array(image, size)


@cache
def _plugins() -> tuple[str, ...]:
    """Register the plugins of Pillow that are installed; they do not register themselves."""
    found = []
    for name, register in PLUGINS.items():
        with suppress(ImportError):
            module = import_module(name)
            if register:
                getattr(module, register)()
            found.append(name)
    return tuple(found)


def parallel(one: Callable[[int, int], NDArray[np.uint8]], place: Callable[[int], str], source: str) -> Reader:
    """A reader of many rows from a reader of one row; `place` gives the file of a row, for errors."""

    def tried(row: int, size: int) -> NDArray[np.uint8] | str:
        try:
            return one(row, size)
        except (MemoryError, MachineError):
            raise
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError or struct.error
            if getattr(error, "errno", None) in TRANSIENT:
                raise MachineError(f"{source}: {place(row)}: {first_line(error)}") from error
            return f"({place(row)}) cannot be read ({first_line(error)})"

    def read(rows: Tensor, size: int) -> Tensor:
        with ThreadPoolExecutor(DECODERS) as pool:
            arrays = list(pool.map(lambda row: tried(row, size), rows.tolist()))
        if broken := {row: a for row, a in zip(rows.tolist(), arrays, strict=True) if isinstance(a, str)}:
            raise Unreadable(source, broken) from None
        return torch.from_numpy(np.stack([array for array in arrays if not isinstance(array, str)]))

    vars(read)["decodes"] = True  # so that `rvpt.data.ahead` may call it in processes
    return read


def inside(folder: Path | str, name: str) -> str:
    """The file that a table in `folder` names: an absolute path, or one relative to the folder.

    Raises:
        RvptError: a relative path that leaves the folder, or a URL.
    """
    if "://" in name:
        raise RvptError(f"{name} is a URL: download the images first, with img2dataset say")
    if "\\" in name and sys.platform != "win32" and not os.path.exists(os.path.join(folder, name)):
        name = name.replace("\\", "/")  # written on Windows
    if ".." in name and not os.path.isabs(name) and os.path.normpath(name).split(os.sep)[0] == os.pardir:
        raise RvptError(f"{name} leaves {folder}: write an absolute path, or move the file")
    return os.path.join(folder, name)

"""Weights on disk: names, dtypes and shapes first, values only when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rvpt.errors import RvptError, first_line
from rvpt.models.formats.isolated import read_index
from rvpt.models.formats.pickle_reader import Refused
from rvpt.models.formats.safetensors_file import describe

MAX_FILE = 64 * 2**30  # bytes; the largest CLIP of open_clip with its optimizer has half
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
FLOATING = ("F64", "F32", "F16", "BF16")
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pyth", ".tar")
SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class Stored:
    """A tensor on disk: its dtype by safetensors' name, its shape, and how to read it."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    def changed(self, shape: tuple[int, ...], change: Callable[[Tensor], Tensor]) -> Stored:
        """The same tensor in another form."""
        return Stored(self.dtype, shape, lambda: change(self.read()))


Weights = Mapping[str, Stored]


@dataclass(frozen=True)
class WeightFile:
    """The tensors of one file, and what was found out about it.

    `container` is safetensors, zip, TorchScript or legacy; `left_out` names what was not read.
    """

    weights: Weights
    container: str
    left_out: tuple[str, ...] = ()


def read_weights(path: Path, name: str) -> WeightFile:
    """The tensors of a safetensors file or of one of PyTorch's, which is read as data: nothing is unpickled.

    Raises:
        RvptError: it is damaged or hostile.
    """
    if (size := path.stat().st_size) > MAX_FILE:
        raise RvptError(
            f"{name}: {path.name} has {size / 2**30:.0f} GiB, more than any CLIP: limit {MAX_FILE >> 30} GiB"
        )
    return _safetensors(path, name) if path.suffix == SAFETENSORS else _torch(path, name)


def _safetensors(path: Path, name: str) -> WeightFile:
    try:
        table = describe(path)
    except (Refused, OSError) as error:
        raise RvptError(
            f"{name}: could not load its weights: {path.name} is not a complete safetensors file ({first_line(error)})"
        ) from None
    return WeightFile({key: _stored(path, *entry) for key, entry in table.items()}, "safetensors")


def _torch(path: Path, name: str) -> WeightFile:
    index = read_index(path, name)
    found = {
        key: _stored(path, dtype, tuple(shape), place, tuple(stride))
        for key, (dtype, shape, stride, place) in index["tensors"].items()
    }
    return WeightFile(found, index["container"], tuple(index["left_out"]))


def _stored(
    path: Path, dtype: str, shape: tuple[int, ...], place: int, stride: tuple[int, ...] | None = None
) -> Stored:
    return Stored(dtype, shape, partial(_values, path, dtype, shape, place, stride))


def _values(path: Path, dtype: str, shape: tuple[int, ...], place: int, stride: tuple[int, ...] | None) -> Tensor:
    """A tensor in a file; its place and size were checked when the file was opened."""
    if 0 in shape:
        return torch.empty(shape, dtype=DTYPES[dtype])
    steps = zip(shape, stride, strict=True) if stride is not None else ()
    count = 1 + sum((side - 1) * step for side, step in steps) if stride is not None else math.prod(shape)
    with path.open("rb") as file:
        file.seek(place)
        data = bytearray(file.read(count * DTYPES[dtype].itemsize))
    if len(data) != count * DTYPES[dtype].itemsize:
        raise RvptError(f"{path} was changed while it was read")
    values = torch.frombuffer(data, dtype=DTYPES[dtype])
    return values.view(shape) if stride is None else values.as_strided(shape, stride)

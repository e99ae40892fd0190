"""The header of a safetensors file, checked in full before anything is believed of it. Standard library only."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from rvpt.models.formats.pickle_reader import Refused

MAX_HEADER, MAX_TENSORS, MAX_DIMENSIONS = 16 * 2**20, 100_000, 8
ITEM = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "U64": 8, "U32": 4, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def describe(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Name -> (dtype, shape, first byte in the file) of each tensor.

    Raises:
        Refused: the header is damaged, or its tensors do not fill the file one after another.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise Refused(f"its header is said to have {length:,} bytes")
        facts = _parsed(file.read(length))
    metadata = facts.pop("__metadata__", None)
    if not isinstance(metadata, dict | None) or len(facts) > MAX_TENSORS:
        raise Refused("its header is damaged")
    found = {name: _entry(name, entry) for name, entry in facts.items()}
    _refuse_gaps({name: ends for name, (_, _, *ends) in found.items()}, size - 8 - length)
    return {name: (dtype, shape, 8 + length + start) for name, (dtype, shape, start, _) in found.items()}


def _parsed(header: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(header.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Refused(f"its header is damaged ({type(error).__name__})") from None
    if not isinstance(facts, dict):
        raise Refused("its header is not a record")
    return facts


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise Refused("its header has a name twice")
    return found


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"{name[:80]}: its entry is damaged")
    dtype, shape, ends = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM:
        raise Refused(f"{name[:80]} has values of type {str(dtype)[:40]}, which no CLIP has")
    if not (_sizes(shape) and _sizes(ends) and len(ends) == 2 and len(shape) <= MAX_DIMENSIONS):
        raise Refused(f"{name[:80]}: its sizes are not numbers")
    count = ITEM[dtype]
    for side in shape:
        count *= side
    if ends[1] - ends[0] != count:
        raise Refused(f"{name[:80]} has another size than its shape says")
    return dtype, tuple(shape), ends[0], ends[1]


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)


def _refuse_gaps(ends: dict[str, list[int]], size: int) -> None:
    """Refuse tensors that overlap, leave bytes out, or reach beyond the file."""
    place = 0
    for name, (start, end) in sorted(ends.items(), key=lambda item: item[1]):
        if start != place:
            raise Refused(f"{name[:80]} does not begin where the tensor before it ends")
        place = end
    if place != size:
        raise Refused(f"its tensors take {place:,} bytes, and {size:,} are there")

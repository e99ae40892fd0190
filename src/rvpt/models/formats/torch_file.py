"""PyTorch's files as tables of tensors: zip archives (state dicts, TorchScript) and the format before torch 1.6.

Only the pickle is read here, as data; of each tensor its place in the file is found, so that its values can be read
from there. Standard library only, as `machine`.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from rvpt.models.formats.pickle_reader import Machine, Record, Refused, Storage, TensorView, is_scripted

MAX_PICKLE = 16 * 2**20
MAX_MEMBERS, MAX_TENSORS, MAX_DEPTH = 100_000, 100_000, 24
MAX_RATIO = 1000  # of a zip member's size to what it takes in the file
ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
KINDS = {b"\x1f\x8b": "gzip", b"\x89HDF": "HDF5", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"<": "a web page or XML"}
LOCAL_HEADER = 30
Found = dict[str, tuple[int, int]]
"""Where each storage is: its first byte, and how many bytes there are."""


def describe(path: Path) -> dict[str, Any]:
    """What is in a file of PyTorch's.

    Returns:
        "container": zip, TorchScript or legacy; "tensors": name -> [dtype, shape, stride, first byte];
        "left_out": names of what is not weights.

    Raises:
        Refused: it is not such a file, or a hostile one.
    """
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
        if start[:4] == b"PK\x03\x04":
            container, tree, found, neutral = _zip(file)
        elif start == LEGACY:
            container, tree, found, neutral = _legacy(file)
        else:
            raise Refused(f"it is not a file of PyTorch's{_kind(start)}")
    tensors = {name: _placed(name, view, found) for name, view in flatten(tree)}
    return {"container": container, "tensors": tensors, "left_out": sorted(neutral)}


def _kind(start: bytes) -> str:
    known = next((kind for magic, kind in KINDS.items() if start.startswith(magic)), None)
    return f" but {known}" if known else " (a bare pickle)" if start[:1] == b"\x80" else ""


def _zip(file: BinaryIO) -> tuple[str, Any, Found, set[str]]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, struct.error, OSError, NotImplementedError, UnicodeError) as error:
        raise Refused(f"its zip archive is damaged or cut off ({type(error).__name__})") from None
    members = _members(archive)
    pickles = [name for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise Refused(f"its zip archive has {len(pickles)} data.pkl, where PyTorch writes one")
    top = pickles[0].partition("/")[0]
    if f"{top}/byteorder" in members and _member(file, members[f"{top}/byteorder"], 16) != b"little":
        raise Refused("its numbers are big-endian: save it again on a little-endian machine")
    machine = Machine(_member(file, members[pickles[0]], MAX_PICKLE))
    tree = machine.read()
    prefix = f"{top}/data/"
    found = {
        name.removeprefix(prefix): (_place(file, info), info.file_size)
        for name, info in members.items()
        if name.startswith(prefix)
    }
    scripted = f"{top}/constants.pkl" in members or any(name.startswith(f"{top}/code/") for name in members)
    return "TorchScript" if scripted else "zip", tree, found, machine.neutral


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by name, all of them harmless."""
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise Refused(f"its zip archive has {len(entries):,} members")
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise Refused(f"its zip archive has a member outside of itself, {name[:80]!r}")
        if entry.header_offset < 0:
            raise Refused(f"its zip archive is damaged at {name[:80]!r}")
        if name in members:
            raise Refused(f"its zip archive has two members {name[:80]!r}")
        if entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise Refused(f"its zip archive is a bomb: {name[:80]!r} would grow {MAX_RATIO} times")
        members[name] = entry
    _refuse_overlap(entries)
    return members


def _refuse_overlap(entries: list[zipfile.ZipInfo]) -> None:
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    for one, other in pairwise(ordered):
        if one.header_offset + LOCAL_HEADER + one.compress_size > other.header_offset:
            raise Refused(f"its zip archive has overlapping members ({one.filename[:80]!r})")


def _place(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """The first byte of a member's contents, which must be in the file as they are."""
    name = entry.filename[:80]
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
        raise Refused(
            f"its zip archive has a compressed or encrypted member, {name!r}, where PyTorch stores plain ones"
        )
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise Refused(f"its zip archive is damaged at {name!r}")
    names, extra = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + LOCAL_HEADER + int(names) + int(extra)
    if start + entry.file_size > _size(file):
        raise Refused(f"its zip archive is cut off in {name!r}")
    return start


def _member(file: BinaryIO, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise Refused(f"its {entry.filename[:80]} has {entry.file_size:,} bytes, more than a model's")
    file.seek(_place(file, entry))
    return file.read(entry.file_size)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size if hasattr(file, "raw") else file.seek(0, os.SEEK_END)


def _legacy(file: BinaryIO) -> tuple[str, Any, Found, set[str]]:
    """Five pickles (magic number, version, machine, the object, keys of storages), and then the storages."""
    file.seek(0)
    machine = Machine(file.read(MAX_PICKLE))
    _, version, system, tree = (machine.read() for _ in range(4))
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("its header is not that of a little-endian file of PyTorch's")
    keys = machine.read()
    storages = {view.storage.key: view.storage for _, view in flatten(tree)}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(storages) - set(keys):
        raise Refused("its list of storages is damaged")
    found, place, end = {}, machine.stream.tell(), _size(file)
    for key in keys:
        if key not in storages:
            raise Refused(f"its storage {key[:40]!r} belongs to nothing that is read")
        file.seek(place)
        size = _bytes(storages[key])
        if file.read(8) != struct.pack("<q", storages[key].count) or place + 8 + size > end:
            raise Refused(f"its storage {key[:40]!r} is cut off or has another size than stated")
        found[key] = (place + 8, size)
        place += 8 + size
    return "legacy", tree, found, machine.neutral


def flatten(tree: Any) -> Iterator[tuple[str, TensorView]]:
    """All tensors in nested dictionaries, lists and scripted modules, by their path: "state_dict.visual.proj"."""
    pending, seen, names = [("", tree, 0)], 0, set()
    while pending:
        path, value, depth = pending.pop()
        seen += 1
        if seen > 10 * MAX_TENSORS or depth > MAX_DEPTH:
            raise Refused("its pickle nests values too deeply, or repeats them too often")
        if isinstance(value, TensorView):
            if path in names:
                raise Refused(f"it has two tensors called {path[:80]!r}")
            names.add(path)
            yield path, value
        children = list(_children(value))
        pending += [(f"{path}.{name}" if path else str(name), child, depth + 1) for name, child in reversed(children)]


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Record):
        value = value.attributes if is_scripted(value.name) else {}
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, child in pairs:
        if isinstance(child, TensorView | Mapping | list | tuple | Record):
            yield str(name)[:200], child


def _placed(name: str, view: TensorView, found: Found) -> list[Any]:
    """A tensor's dtype, shape, stride and first byte, all of it within its storage."""
    storage, count = view.storage, 1
    for side in view.shape:
        count *= side
    last = view.offset + sum((side - 1) * step for side, step in zip(view.shape, view.stride, strict=True))
    if storage.key not in found or found[storage.key][1] != _bytes(storage):
        raise Refused(f"{name[:80]}: its storage is missing or has another size than stated")
    if count > storage.count or (count and last >= storage.count):
        raise Refused(f"{name[:80]} reaches beyond its storage")
    return [storage.dtype, view.shape, view.stride, found[storage.key][0] + view.offset * ITEM[storage.dtype]]


def _bytes(storage: Storage) -> int:
    if storage.dtype not in ITEM:
        raise Refused(f"it has values of type {storage.dtype[:40]}, which no CLIP has")
    return storage.count * ITEM[storage.dtype]


def limit(seconds: int, memory: int) -> None:
    """Limit what this process may use, and forbid it to write files, where the system can do that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))


def main(path: str, seconds: str, memory: str) -> None:
    """Print the table of a file as JSON; the body of the process of its own."""
    limit(int(seconds), int(memory))
    try:
        result = describe(Path(path))
    except Refused as reason:
        result = {"refused": str(reason)}
    except (MemoryError, RecursionError) as error:
        result = {"refused": f"reading it needs too much memory ({type(error).__name__})"}
    json.dump(result, sys.stdout)

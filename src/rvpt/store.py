"""Artifacts on disk: safetensors and JSON with hashes, written whole or not at all; rows as JSONL."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rvpt import __version__
from rvpt.errors import RvptError
from rvpt.progress import main_process

MANIFEST = "manifest.json"
STAMP = ("kind", "parts", "versions")  # what every manifest says besides its artifact's facts


@contextmanager
def staging(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder beside `target` to write into; it becomes `target` at the end, or vanishes on any error.

    Of several processes of one launch the first alone leaves something.

    Raises:
        RvptError: `target` exists and `force` is not given, or the disk is full or not writable.
    """
    if main_process():
        refuse_existing(target, force=force)
    place = target.resolve()  # a link stays one
    temporary = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with disk_errors(target):
            temporary.mkdir(parents=True)
            yield temporary
            if main_process():
                _replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """What goes wrong while `target` is written becomes an RvptError."""
    try:
        yield
    except OSError as error:
        raise _disk_error(error, target) from error
    except SafetensorError as error:
        raise RvptError(f"could not write {target}: {error}. Free some space or choose another folder") from error


def refuse_existing(target: Path, *, force: bool) -> None:
    """Raise RvptError if `target` could not be made, or holds what may not be replaced.

    With `force` an artifact may be, and nothing else: images, say, are nobody's to throw away.
    """
    if target.resolve() == Path.cwd():
        raise RvptError(f"{target} is the folder that you are in: give --out a name in it")
    if target.exists() and not target.is_dir():
        raise RvptError(f"{target} is a file, a folder is needed: choose another --out")
    if target.exists() and any(target.iterdir()):
        if not force:
            raise RvptError(f"{target} exists already: choose another --out or give --force")
        stated = _stated(target)
        if not stated.keys() >= set(STAMP):
            raise RvptError(f"{target} is no artifact of rvpt (no {MANIFEST} of ours), and stays: choose another --out")
        if other := _added(target, stated["parts"]):
            raise RvptError(f"{target} holds {other}, which is no part of it: move that, or choose another --out")
    refuse_unwritable(target)


def _added(artifact: Path, parts: Iterable[str]) -> Path | None:
    """A file in an artifact's folder that is none of its parts."""
    known = {MANIFEST, *parts}
    files = (path.relative_to(artifact) for path in artifact.rglob("*") if not path.is_dir())
    return next((path for path in files if path.as_posix() not in known), None)


def unnamed(source: str) -> str:
    """A data set's name without the file of class names that may stand behind it, as in NAME@FILE."""
    return source if Path(source).expanduser().exists() else source.rpartition("@")[0] or source


def refuse_source(target: Path, sources: Iterable[str]) -> None:
    """Raise RvptError if writing `target` would replace a folder that is read."""
    for source in sources:
        place = Path(unnamed(source)).expanduser().resolve()
        if place.exists() and target.resolve() in (place, *place.parents):
            raise RvptError(f"{target} holds {source}, which is read: choose another --out")


def refuse_unwritable(target: Path) -> None:
    """Raise RvptError if nothing could be made at `target`: better said before the work than after it."""
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RvptError(f"{target} cannot be made: {above} is no folder that may be written to")


def refuse_unwritable_file(path: Path) -> None:
    """Raise RvptError if no file could be written at `path`, as of rows that are asked for."""
    if path.is_dir():
        raise RvptError(f"{path} is a folder, a file is needed")
    if path.exists() and not os.access(path, os.W_OK):
        raise RvptError(f"{path} may not be written to: choose another file")
    refuse_unwritable(path)


def refuse_existing_file(path: Path, *, force: bool) -> None:
    """Raise RvptError if there is a file at `path` and `force` is not given, or if none could be written."""
    if path.is_file() and not force:
        raise RvptError(f"{path} exists already: choose another file or give --force")
    refuse_unwritable_file(path)


def _replace(temporary: Path, target: Path) -> None:
    """Put the finished folder in the target's place, keeping the old one until the new one stands."""
    if not target.exists():
        os.rename(temporary, target)
        return
    old = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.old"
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _disk_error(error: OSError, target: Path) -> RvptError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RvptError(f"no space left to write {target}: free some or choose another folder")
    return RvptError(f"could not write {target}: {error.strerror or error}")


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A file of the same suffix beside `path` to write; it becomes `path` at the end, or vanishes on any error.

    Raises:
        RvptError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` under a temporary name, then rename."""
    with staged_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` as safetensors, on the CPU and contiguous."""
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; a file that is missing or damaged is an RvptError."""
    with _whole(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the head of a safetensors file; a file that is missing or damaged is an RvptError."""
    with _whole(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _whole(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise RvptError(f"{path} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise RvptError(f"{path} is not a whole safetensors file ({error}): fetch or make it again") from None


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; a file that is missing or damaged is an RvptError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RvptError(f"{path} is missing") from None
    except (ValueError, OSError) as error:
        raise RvptError(f"{path} cannot be read as JSON: {error}") from None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over name, dtype, shape and bytes of each tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_manifest(folder: Path, kind: str, **facts: Any) -> None:
    """Write the manifest of an artifact: its kind, facts, the version, and the sha256 of every file in it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    parts = {p.relative_to(folder).as_posix(): sha256_file(p) for p in files}
    versions = {"rvpt": __version__, "torch": str(torch.__version__)}
    write_json(folder / MANIFEST, {"kind": kind, **facts, "parts": parts, "versions": versions})


def read_manifest(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of an artifact whose files are all there and unchanged.

    Raises:
        RvptError: no manifest, another kind of artifact, or a file that differs from its hash.
    """
    if not (folder / MANIFEST).is_file():
        raise RvptError(f"{folder} is no rvpt artifact: it has no {MANIFEST}")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("parts"), dict):
        raise RvptError(f"{folder / MANIFEST} is not a whole manifest: make the artifact again")
    if kind and manifest.get("kind") != kind:
        raise RvptError(f"{folder} holds a {manifest.get('kind')}, a {kind} is needed")
    for name, expected in manifest["parts"].items():
        if not (folder / name).is_file():
            raise RvptError(f"{folder / name} is missing: the artifact is not whole, make it again")
        if sha256_file(folder / name) != expected:
            raise RvptError(f"{folder / name} was changed since it was made (its sha256 differs): make it again")
    return manifest


def find_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder that we wrote; None for others, which may have a manifest.json of their own.

    Raises:
        RvptError: a file of ours was changed since.
    """
    return read_manifest(folder) if "parts" in _stated(folder) else None


def _stated(folder: Path) -> dict[str, Any]:
    """What the manifest.json of a folder says, ours or another's, unchecked; nothing where there is none."""
    facts = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    return facts if isinstance(facts, dict) else {}


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of rows, whole or not at all, in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _lines(rows))


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append each row as one JSON line: all of them or, on a full disk, none; of several processes the first alone."""
    if not main_process():
        return
    text = _lines(rows)
    size = path.stat().st_size if path.is_file() else 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if size:
                file.seek(-1, os.SEEK_END)
                text = text if file.read() == b"\n" else f"\n{text}"
            file.write(text.encode())
    except OSError as error:
        if path.is_file():
            os.truncate(path, size) if size else path.unlink()
        raise _disk_error(error, path) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSONL file; a line that is no JSON object is an RvptError."""
    if not path.is_file():
        raise RvptError(f"{path} is missing: give a file of rows (JSONL)")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):  # bytes: U+2028 ends no line of JSONL
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise RvptError(f"{path}, line {number}: not a JSON object")
        rows.append(row)
    return rows

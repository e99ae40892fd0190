"""Writing files completely or not at all: first under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rvpt.errors import MachineError, RvptError


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn disk errors while `target` is written into a MachineError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(f"no space left to write {target}: free some or choose another folder") from error
        raise MachineError(f"could not write {target}: {error.strerror or error}") from error
    except SafetensorError as error:  # it has no number
        if not str(error).startswith("Error while serializing"):
            raise
        raise MachineError(f"could not write {target}: {error}: free some space or choose another folder") from error


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A file of the same suffix beside `path` to write; it becomes `path` at the end, or is removed on any error.

    Raises:
        MachineError: the disk is full or not writable.
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


def share(path: Path) -> None:
    """Give a file the permissions of any new file; safetensors writes files that only their owner can read."""
    probe = path.with_name(f".{uuid.uuid4().hex[:8]}.partial")
    probe.touch()
    path.chmod(stat.S_IMODE(probe.stat().st_mode))
    probe.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` under a temporary name, then rename."""
    with staged_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        RvptError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RvptError(f"{path} is missing") from None
    except (ValueError, OSError, RecursionError) as error:
        raise RvptError(f"{path} cannot be read as JSON: {error}") from None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def refuse_unwritable(target: Path) -> None:
    """Fail early if nothing can be created at `target`.

    Raises:
        RvptError: the folder above it is not writable.
    """
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RvptError(f"{target} cannot be created: {above} is not a writable folder")


def refuse_unwritable_file(path: Path) -> None:
    """Fail early if no file can be written at `path`.

    Raises:
        RvptError: it is a folder, or not writable.
    """
    if path.is_dir():
        raise RvptError(f"{path} is a folder: give a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise RvptError(f"{path} is not writable: choose another file")
    refuse_unwritable(path)


def refuse_existing_file(path: Path, *, overwrite: bool) -> None:
    """Fail early if a file would be overwritten without permission, or cannot be written.

    Raises:
        RvptError: the file exists and `overwrite` is false, or `path` is not writable.
    """
    if path.is_file() and not overwrite:
        raise RvptError(f"{path} already exists: choose another file or pass overwrite=True")
    refuse_unwritable_file(path)

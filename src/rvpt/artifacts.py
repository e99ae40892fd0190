"""Artifacts: folders with a manifest that lists the sha256 of each of their parts, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from rvpt import __version__
from rvpt.errors import RvptError
from rvpt.files import disk_errors, read_json, refuse_unwritable, sha256_file, write_json
from rvpt.progress import main_process

MANIFEST = "manifest.json"
CARD = "README.md"  # not a part: people edit it, and so does the hub's web page
STAMP = ("kind", "parts", "versions")  # keys of every manifest, besides the facts of its artifact


@contextmanager
def staging(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside `target` to write into; it becomes `target` at the end, or is removed on any error.

    In a launch of several processes only the first one writes `target`.

    Raises:
        RvptError: `target` exists and `overwrite` is false.
        MachineError: the disk is full or not writable.
    """
    if main_process():
        refuse_existing(target, overwrite=overwrite)
    place = target.resolve()  # a link stays a link
    temporary = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with disk_errors(target):
            temporary.mkdir(parents=True)
            yield temporary
            if main_process():
                _replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Fail early if `target` cannot be created, or must not be replaced.

    `overwrite` only allows replacing an artifact: other folders, of images for example, are never deleted.

    Raises:
        RvptError: it cannot, or must not; the message says why.
    """
    if target.resolve() == Path.cwd():
        raise RvptError(f"{target} is the current folder: choose a folder in it")
    above = (*target.resolve().parents, *target.absolute().parents)  # a link may lead into an artifact, or out of it
    if within := next((folder for folder in dict.fromkeys(above) if _is_artifact(folder)), None):
        raise RvptError(f"{target} is in {within}, which rvpt wrote and lists file by file: choose another folder")
    if target.exists() and not target.is_dir():
        raise RvptError(f"{target} is a file: choose a folder")
    if target.exists() and any(target.iterdir()):
        if not overwrite:
            raise RvptError(f"{target} already exists: choose another folder or pass overwrite=True")
        stated = _stated(target)
        if not stated.keys() >= set(STAMP):
            raise RvptError(f"{target} was not created by rvpt (it has no {MANIFEST}); refusing to overwrite it")
        refuse_added(target, stated["parts"])
    refuse_unwritable(target)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """While a command writes `target`, refuse any other that would; in a launch the first process holds the lock.

    The lock is a hidden file beside `target`, which is removed in the end. It does not outlive its process.

    Raises:
        RvptError: another process is writing `target`.
    """
    place = target.resolve()
    missing = [folder for folder in place.parents if not folder.exists()]
    file = _lock_file(place) if main_process() else None
    if file is None:
        yield
        return
    with file:
        if not _take(file):
            raise RvptError(f"another command is writing {target}: wait until it ends, or choose another folder")
        try:
            yield
        finally:
            Path(file.name).unlink(missing_ok=True)
            for folder in missing:
                with suppress(OSError):  # it is in use
                    folder.rmdir()


def _lock_file(place: Path) -> TextIO | None:
    """The opened lock file of a folder; None where nothing can be written, which the command itself will say."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return (place.parent / f".{place.name}.lock").open("w")
    except OSError:
        return None


def _take(file: TextIO) -> bool:
    """Lock a file, unless another process has locked it, or has just removed it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except FileNotFoundError:
        return False


def write_manifest(folder: Path, kind: str, **facts: Any) -> None:
    """Write an artifact's manifest: its kind, facts, versions, and the sha256 of every file but its model card."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p not in (folder / MANIFEST, folder / CARD))
    parts = {p.relative_to(folder).as_posix(): sha256_file(p) for p in files}
    versions = {"rvpt": __version__, "torch": version("torch")}
    write_json(folder / MANIFEST, {"kind": kind, **facts, "parts": parts, "versions": versions})


def read_manifest(folder: str | Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of an artifact whose files are all present and unchanged.

    Raises:
        RvptError: no manifest, another kind of artifact, or a file that differs from its hash.
    """
    folder = Path(folder)
    if not folder.exists():
        raise RvptError(f"{folder} does not exist: give the folder of an rvpt artifact")
    if not (folder / MANIFEST).is_file():
        raise RvptError(f"{folder} is not an rvpt artifact: it has no {MANIFEST}")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("parts"), dict):
        raise RvptError(f"{folder / MANIFEST} is not a complete manifest: recreate the artifact")
    if kind and manifest.get("kind") != kind:
        raise RvptError(f"{folder} holds {called(manifest.get('kind'))}, not {called(kind)}")
    for name, expected in manifest["parts"].items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise RvptError(f"{folder / MANIFEST} lists {name}, which is outside of the folder: recreate the artifact")
        if not (folder / name).is_file():
            raise RvptError(f"{folder / name} is missing: recreate the artifact")
        if sha256_file(folder / name) != expected:
            raise RvptError(f"{folder / name} was changed after it was created (sha256 differs): recreate the artifact")
    return manifest


def called(kind: Any) -> str:
    """A kind of artifact in a sentence, such as "a cleaned model" or "an export"."""
    words = {"clip": "model", "backdoored": "backdoored model", "fine-tuned": "fine-tuned model"}
    word = {**words, "cleaned": "cleaned model"}.get(kind, str(kind))
    plural = word.endswith("s")  # figures
    return word if plural else f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def find_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder that rvpt created; None for other folders, even if they have a manifest.json.

    Raises:
        RvptError: a file of the artifact was changed.
    """
    return read_manifest(folder) if "parts" in _stated(folder) else None


def _stated(folder: Path) -> dict[str, Any]:
    """The unchecked contents of a folder's manifest.json, empty if there is none."""
    facts = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    return facts if isinstance(facts, dict) else {}


def _is_artifact(folder: Path) -> bool:
    with suppress(RvptError, OSError):
        return _stated(folder).keys() >= set(STAMP)
    return False


def refuse_added(artifact: Path, parts: Iterable[str]) -> None:
    """Refuse a folder with a file, or a link to a folder, that is not one of the artifact's parts.

    Raises:
        RvptError: there is one.
    """
    known = {MANIFEST, CARD, *parts}
    files = (path.relative_to(artifact) for path in artifact.rglob("*") if path.is_symlink() or not path.is_dir())
    if other := next((path for path in files if path.as_posix() not in known), None):
        raise RvptError(f"{artifact} also holds {other}, which is not part of it: move that or choose another folder")


def _replace(temporary: Path, target: Path) -> None:
    """Rename the finished folder to `target`, keeping the old one until that has worked."""
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

"""Verifying artifacts: every file is the one that was written, and gives the outputs that it gave then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rvpt.artifacts import MANIFEST, read_manifest, refuse_added
from rvpt.attacks.trigger import load_trigger
from rvpt.detection.calibration import Calibration
from rvpt.errors import MachineError, RvptError, first_line
from rvpt.exports import EXPORTS
from rvpt.exports.base import TOLERANCE, largest_difference
from rvpt.exports.save import REFERENCE, split_reference
from rvpt.files import read_json
from rvpt.jobs.findings import VERDICT
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.load import load
from rvpt.tensors import read_tensors

Manifest = Mapping[str, Any]


def verify(folder: str | Path, *, base: str | None = None) -> dict[str, Any]:
    """Check an artifact that rvpt wrote, and the artifacts in it.

    All: each file has the sha256 in the manifest, and there are no other files; only the model card, README.md, may
    differ. Models are loaded; cleaned ones on their base model, whose hash must be the one that was cleaned. Exports
    must give the outputs stored with them, except formats whose files may run code when they are read.

    Hashes find damage and mistakes. They do not prove who wrote a folder: whoever can change its files can change its
    manifest too.

    Args:
        folder: the artifact.
        base: the base model of a cleaned model, or of an export of prompts alone, if it is not found automatically.

    Returns:
        What was checked, and what was not.

    Raises:
        RvptError: something differs, is missing, or cannot be checked; the message names it.
    """
    folder = Path(folder).expanduser()
    inner = sorted(path.parent for path in folder.rglob(MANIFEST) if path.parent != folder)
    manifests, told = zip(*(_checked(place, base) for place in (folder, *inner)), strict=True)
    if base and not any(map(_on_a_base, manifests)):
        raise RvptError(f"{folder} has no base model: remove base={base}")
    return {**told[0], **({"artifacts in it": len(inner)} if inner else {})}


def _checked(folder: Path, base: str | None) -> tuple[Manifest, dict[str, Any]]:
    """The manifest of one artifact, and what was checked of it, without those in it."""
    manifest = read_manifest(folder)
    refuse_added(folder, manifest["parts"])
    check = CHECKS.get(str(manifest.get("kind")))
    if check is None:
        raise RvptError(f"{folder} holds a {manifest.get('kind')}, which this version of rvpt does not know")
    return manifest, {"kind": manifest["kind"], "files": len(manifest["parts"]), **check(folder, manifest, base)}


def _on_a_base(manifest: Manifest) -> bool:
    """Whether an artifact holds less than a model, and needs its base."""
    if manifest["kind"] == "export":
        return EXPORTS.find(str(manifest.get("format"))).needs_base
    return bool(manifest["kind"] == "cleaned")


def _model(folder: Path, manifest: Manifest, base: str | None) -> dict[str, Any]:
    """A Clip or a Cleaned is loaded, and has the hash that was stated."""
    digest = load(folder, base=base if manifest["kind"] == "cleaned" else None, device="cpu").hash()
    if (stated := manifest.get("sha256")) and stated != digest:
        raise RvptError(f"{folder}: its weights have sha256 {digest[:12]}..., not {stated[:12]}...: recreate it")
    return {"sha256": digest}


def _trigger(folder: Path, manifest: Manifest, base: str | None) -> dict[str, Any]:
    return {"sha256": load_trigger(folder).hash()}


def _calibration(folder: Path, manifest: Manifest, base: str | None) -> dict[str, Any]:
    return {"models": len(Calibration.read(folder).models)}


def _verdict(folder: Path, manifest: Manifest, base: str | None) -> dict[str, Any]:
    read_json(folder / VERDICT)
    return {"verdict": manifest.get("verdict")}


def _hashes_alone(folder: Path, manifest: Manifest, base: str | None) -> dict[str, Any]:
    return {}


def _export(folder: Path, manifest: Manifest, base: str | None) -> dict[str, Any]:
    """The files give the outputs that are stored with them."""
    kind = EXPORTS.find(str(manifest.get("format")))
    told = {"format": kind.name}
    if kind.unpickles:
        return {**told, "outputs": "not compared, because reading such files may run code in them"}
    inputs, expected = split_reference(read_tensors(folder / REFERENCE))
    clip = _base(manifest.get("model"), base) if kind.needs_base else None
    try:
        found = kind.run(folder, inputs, clip)
    except (RvptError, MachineError):
        raise
    except Exception as error:  # of all kinds, for files that do not fit each other
        raise RvptError(f"{folder}: its files cannot be run ({first_line(error)}): export it again") from None
    difference = largest_difference(found, expected)
    if not difference <= TOLERANCE:
        raise RvptError(f"{folder}: its outputs differ by {difference:.1e} from those stored with it: export it again")
    return {**told, "outputs": f"as stored, to {difference:.1e}"}


def _base(stated: Any, base: str | None) -> Clip:
    """The base model of an export, if it is the one that was exported."""
    if not isinstance(stated, Mapping) or not stated.keys() >= {"base_model", "base_revision", "base_sha256"}:
        raise RvptError(f"{MANIFEST} does not say which base model was exported: export it again")
    activation = stated.get("base_activation")  # which a file of weights does not state
    try:
        revision = None if base else stated["base_revision"]
        clip = load_clip(base or stated["base_model"], revision=revision, device="cpu", activation=activation)
    except RvptError as error:
        raise RvptError(f"{error}; it is the base model of the export: pass its place as base=MODEL") from None
    if clip.hash() != stated["base_sha256"]:
        raise RvptError(f"{clip.source} is another model than the base that was exported: pass base=MODEL")
    return clip


CHECKS: dict[str, Callable[[Path, Manifest, str | None], dict[str, Any]]] = {
    "clip": _model,
    "backdoored": _model,
    "fine-tuned": _model,
    "cleaned": _model,
    "trigger": _trigger,
    "calibration": _calibration,
    "check": _verdict,
    "checked cleaning": _hashes_alone,
    "inspection": _hashes_alone,
    "figures": _hashes_alone,
    "export": _export,
    "demo": _hashes_alone,
}
"""What is checked besides the files, by kind of artifact."""

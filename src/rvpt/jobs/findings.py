"""What a check found, for jobs that use it."""

from __future__ import annotations

import logging
from pathlib import Path

from rvpt.artifacts import read_manifest
from rvpt.errors import RvptError
from rvpt.files import read_json
from rvpt.models.clip import Clip

KIND, VERDICT = "check", "verdict.json"
MOST = 3  # suspected targets that are used: the right one is among them more often than it is first
logger = logging.getLogger("rvpt")


def suspected_targets(folder: Path, model: Clip, count: int | None = None) -> list[str]:
    """The classes that a check of this model suspects most, the most suspicious first.

    Args:
        folder: what `rvpt check` wrote.
        model: the suspect.
        count: how many, at most; three by default.

    Raises:
        RvptError: the folder is no check, was changed, or belongs to another model.
    """
    manifest = read_manifest(folder, KIND)
    if manifest.get("model_sha256") != model.hash():
        raise RvptError(f"{folder} is a check of another model than {model.name} (the sha256 differs): check this one")
    if manifest.get("verdict") == "clean":
        logger.warning("the check in %s found no backdoor: its targets are those that come nearest to one", folder)
    return [str(row["class"]) for row in read_json(folder / VERDICT)["targets"]][: count or MOST]

"""Check a model, clean it if it looks backdoored, and check it again: one folder with all three results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from rvpt.artifacts import staging, write_manifest
from rvpt.data.identifiers import canonical
from rvpt.defenses import DEFENSES
from rvpt.detection.calibration import Calibration, geometry_of
from rvpt.files import read_json, write_json
from rvpt.jobs.checking import check_and_save
from rvpt.jobs.cleaning import TARGETS, clean_and_save, plan, uses_targets
from rvpt.jobs.findings import VERDICT
from rvpt.jobs.kept_accuracy import kept_accuracy
from rvpt.jobs.output_dirs import open_checkpoint
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.progress import Report
from rvpt.training.checkpoint import Checkpoint

KIND = "checked cleaning"
BEFORE, CLEANED, AFTER, SUMMARY = "check-before", "cleaned", "check-after", "cleaning.json"
ACCURACY = "accuracy"
Bar = Callable[[str], AbstractContextManager[Report]]


def check_clean_check(
    model: Clip,
    source: str,
    target: Path,
    defense: str,
    settings: Mapping[str, Any],
    bar: Bar,
    *,
    checking: Mapping[str, Any] | None = None,
    calibration: Path | None = None,
    reference: Clip | Cleaned | None = None,
    resume: bool = False,
    overwrite: bool = False,
    **drawing: Any,
) -> dict[str, Any]:
    """Check a model, clean it unless the verdict is clean, and check the cleaned model; returns what was found.

    Args:
        model: the suspect.
        source: the data set that clean images are drawn from; the checks use it too.
        target: the folder to write: check-before/, cleaned/, accuracy.json and check-after/, or only the first if
            nothing was found.
        defense: a name; a defense that uses suspected targets gets those of the first check, if it is given none.
        settings: changes of the preset.
        bar: makes the progress report of each of the three steps.
        checking: settings of `CheckSpec` for both checks; by default those of the calibration, if one is given.
        calibration: a file or folder, for both checks; by default the one that ships with rvpt.
        reference: a model of the same kind that is trusted, for both checks.
        resume: continue an interrupted run after its last finished part; after a cleaning that failed, it may have
            other settings.
        overwrite: replace an artifact at `target`.
        drawing: further arguments of `clean_and_save`.

    Returns:
        The verdicts as `before` and `after`, the summary of `clean_and_save` as `cleaned`, and what `kept_accuracy`
        finds as `accuracy`; None for what was not done.
    """
    todo = plan(model, source, defense, settings, **drawing)  # fails before the first check, not after it
    shared: dict[str, Any] = {
        name: drawing[name] for name in ("split", "shift", "classes", "on_error") if name in drawing
    }
    known = Calibration.read(calibration, geometry_of(model)) if calibration else None
    checking = {**(known.settings if known else {}), **(checking or {})}
    checks = {**shared, "calibration": calibration, "reference": reference, "resume": True, **checking}
    key = {"model": model.hash(), "data": canonical(source), "drawing": shared, "checking": checking}
    key |= {"calibration": known.sha256()} if known else {}
    key |= {"reference": reference.hash()} if reference else {}
    own = {"defense": defense, "settings": dict(settings), "drawing": drawing}  # the first check needs none of these
    checkpoint = open_checkpoint(target, key, (model.source, source), resume=resume, overwrite=overwrite)
    found: dict[str, Any] = {"before": None, CLEANED: None, ACCURACY: None, "after": None}
    with checkpoint.keeping() as kept:
        parts, cleaning = kept / "parts", Checkpoint(kept / "cleaning", own, resume=True)
        found["before"] = _checked(model, source, parts / BEFORE, bar, "1/3 check", checks)
        if found["before"]["verdict"] != "clean":
            cleaning.check()
            with cleaning.keeping():  # until it fails, it is continued with its own settings only
                clean = partial(_cleaned, model, source, parts, bar, defense, settings, drawing)
                found[CLEANED] = _once(parts / SUMMARY, clean)
            cleaned = Cleaned.from_pretrained(parts / CLEANED, model)
            found[ACCURACY] = _once(parts / f"{ACCURACY}.json", lambda: kept_accuracy(model, cleaned, todo))
            found["after"] = _checked(cleaned, source, parts / AFTER, bar, "3/3 check again", checks)
    with staging(target, overwrite=overwrite) as stage:
        write_manifest(parts, KIND, model_sha256=model.hash(), defense=defense)
        for part in parts.iterdir():
            os.rename(part, stage / part.name)
    checkpoint.drop()
    return found


def _checked(model: Clip | Cleaned, source: str, part: Path, bar: Bar, title: str, checks: Any) -> dict[str, Any]:
    """The verdict of a check, which runs unless it is finished."""
    if not part.exists():
        with bar(title) as report:
            check_and_save(model, source, part, report=report, **checks)
    return read_json(part / VERDICT)


def _once(part: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a finished part of the run says; it is made and written unless it is there."""
    if not part.exists():
        write_json(part, make())
    return read_json(part)


def _cleaned(
    model: Clip, source: str, parts: Path, bar: Bar, defense: str, settings: Mapping[str, Any], drawing: Any
) -> dict[str, Any]:
    """Clean with the targets of the first check, if the defense uses them and is given none."""
    asked = uses_targets(DEFENSES.find(defense)) and TARGETS not in settings
    check = parts / BEFORE if asked else None
    with bar("2/3 clean") as report:
        return clean_and_save(
            model, source, parts / CLEANED, defense, settings, check=check, resume=True, overwrite=True,
            report=report, **drawing,
        )  # fmt: skip

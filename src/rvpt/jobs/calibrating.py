"""Calibrating as a whole job: clean models in, a folder with what is natural in them out, for `rvpt check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.artifacts import staging, write_manifest
from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import canonical
from rvpt.data.load import load_data
from rvpt.data.skip import skipped_facts
from rvpt.detection.calibration import FEWEST, FILE, KIND, Calibration, geometry_of, refuse_other_size
from rvpt.detection.spec import CheckSpec
from rvpt.errors import RvptError
from rvpt.files import read_json
from rvpt.jobs.checking import candidates
from rvpt.jobs.output_dirs import open_checkpoint
from rvpt.jobs.scoring import score_and_save
from rvpt.models.load import load
from rvpt.progress import Report, doing, silent
from rvpt.spec import OnError


def calibrate_and_save(
    sources: Sequence[str],
    data_source: str,
    target: Path,
    *,
    classes: Sequence[str] | None = None,
    split: str | None = None,
    shift: str | None = None,
    on_error: OnError = "stop",
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
    **settings: Any,
) -> Calibration:
    """Measure clean models as a check does, all classes to the end; write calibration.json.

    Args:
        sources: clean models, at least four, loaded one after the other.
        data_source: clean images of any kind.
        target: the folder to write.
        classes: the candidate targets; by default the data set's classes.
        split: the split of the images.
        shift: change of style of the images.
        on_error: "skip" leaves out images that cannot be read.
        device: where the models are loaded.
        resume: continue an interrupted run after its last finished model; the models may be others.
        overwrite: replace an artifact at `target`.
        report: called after each step.
        settings: of `CheckSpec`.

    Raises:
        RvptError: too few models, equal ones, models of several sizes, or an error of `rvpt.check`.
    """
    if len(sources) < FEWEST:
        raise RvptError(f"{len(sources)} models: a calibration needs at least {FEWEST} clean ones")
    spec, data = CheckSpec(**settings), load_data(data_source, split, shift=shift, on_error=on_error)
    names = candidates(data, data_source, classes)
    hashes, geometry = _identified(sources, device)
    key = {  # without the models: what was measured on one does not depend on the others
        "data": canonical(data_source), "split": split, "classes": names,
        "settings": spec.model_dump(), **({"shift": shift} if shift else {}), **skipped_facts(data),
    }  # fmt: skip
    checkpoint = open_checkpoint(target, key, (*sources, data_source), resume=resume, overwrite=overwrite)
    with checkpoint.keeping() as parts:
        models = [
            _measured(source, device, data, names, spec, parts / f"{digest}.json", report)
            for source, digest in zip(sources, hashes, strict=True)
        ]
    recipe = ", ".join(Path(source).name for source in sources)
    made = Calibration.of(recipe, spec, spec.forms, models, geometry, data.name)
    with staging(target, overwrite=overwrite) as stage:
        made.write(stage / FILE)
        write_manifest(stage, KIND, models=hashes)
    checkpoint.drop()
    return made


def _identified(sources: Sequence[str], device: str | None) -> tuple[list[str], dict[str, int]]:
    """The hashes of the models, and their geometry.

    Raises:
        RvptError: two are the same model, which would hide how clean models differ, or they have several sizes.
    """
    found, geometry = dict[str, str](), dict[str, int]()
    for source in sources:
        model = load(source, device=device)
        own = geometry_of(model)
        geometry = geometry or own
        refuse_other_size((source, own), (sources[0], geometry))
        if (digest := model.hash()) in found:
            raise RvptError(f"{source} and {found[digest]} are the same model: give clean models that differ")
        found[digest] = source
    return list(found), geometry


def _measured(
    source: str, device: str | None, data: Dataset, names: Sequence[str], spec: CheckSpec, path: Path, report: Report
) -> dict[str, Any]:
    """What a check measures on one clean model, with all classes as finalists; kept in a file."""
    if not path.is_file():
        whole = spec.model_copy(update={"finalists": len(names)})
        score_and_save(load(source, device=device), data, names, whole, path, doing(report, model=Path(source).name))
    found = read_json(path)
    return {"sha256": found["model_sha256"], "backdoored": False, "scores": found["scores"], "rises": found["rises"]}
